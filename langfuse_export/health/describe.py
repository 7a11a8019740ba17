"""The health of a project in words."""

from datetime import UTC, datetime

from langfuse_export.health.state import Failure, Health, State
from langfuse_worker.store_faults import AccessFault

_REMEDIES = {
    AccessFault.CREDENTIALS: "Check the destination's keys and what they may do.",
    AccessFault.BUCKET: "Check that the destination's bucket, container or directory is there.",
    AccessFault.ENDPOINT: "Check the destination's endpoint and region.",
}


def describe(health: Health) -> str:
    """One line: the state, since when, why, what comes next, and what somebody has to do."""
    since = f" since {clock(health.since)}" if health.since else ""
    if health.state is State.HEALTHY:
        return f"behind: {behind(health)}" if health.is_behind else "healthy"
    if health.state is State.CATCHING_UP:
        return f"catching up: it works again; windows that waited{since} are on their way"
    why = f": {health.failure.reason}: {health.failure.error}" if health.failure else ""
    return f"{_SAID[health.state]}{since}{why}".rstrip(".") + f". {next_step(health)}"


def behind(health: Health) -> str:
    """Of a project that is late although nothing fails: what waits, and where to look."""
    since = clock(health.behind.since if health.behind else None)
    return (
        f"nothing fails, but a window that was due at {since} has not been exported. Its run waits, takes "
        "long or was never started: look at the run queue in Dagster, and whether its schedules are on."
    )


def next_step(health: Health) -> str:
    """When it is tried again, and what somebody has to do."""
    remedy = _REMEDIES.get(health.failure.fault) if health.failure and health.failure.fault else None
    again = (
        f"Next attempt {clock(health.next_attempt)}."
        if health.next_attempt
        else "It is not tried again by itself."
    )
    if health.state is State.STOPPED:
        again += (
            " A change of its configuration starts it again, as does `langfuse-worker export resume PROJECT`."
        )
    return f"{remedy} {again}" if remedy else again


def clock(moment: datetime | None) -> str:
    """A moment for people, UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment else "-"


def short_reason(failure: Failure | None) -> str:
    """The word for it, with what has to be changed."""
    if failure is None:
        return "-"
    return f"{failure.reason} ({failure.fault.value})" if failure.fault else failure.reason


_SAID = {
    State.STOPPED: "stopped",
    State.BACKING_OFF: "backing off",
    State.RETRYING: "retrying windows that failed",
}
