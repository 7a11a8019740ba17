"""Compares clocks."""

from datetime import datetime

from langfuse_worker.doctor.finding import Finding, ok, problem, warning

_TOLERATED_S = 30
_TOO_MUCH_S = 300


def compare_clocks(what: str, theirs: datetime, ours: datetime) -> Finding:
    """A finding about another clock, read at the same moment as this machine's; both with a zone."""
    skew_s = (theirs - ours).total_seconds()
    text = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine"
    remedy = "synchronise the clocks (NTP): windows are exported by this machine's clock"
    if abs(skew_s) > _TOO_MUCH_S:
        return problem(what, text, remedy)
    if abs(skew_s) > _TOLERATED_S:
        return warning(what, text, remedy)
    return ok(what, text if round(skew_s) else "as this machine's")
