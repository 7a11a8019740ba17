"""`langfuse-worker export history`: what became of every window, and what it cost."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg
from rich.markup import escape
from rich.table import Table as RichTable

from langfuse_export.attempts import Attempt, attempts_of_table
from langfuse_export.commands.run import parse_moment
from langfuse_export.query_cost import QueryCosts, query_costs
from langfuse_export.recorded_tables import RecordedTable
from langfuse_export.windows import Frequency, Window, iso
from langfuse_worker.clickhouse import connect
from langfuse_worker.console import width_of
from langfuse_worker.settings import Settings

_NUMBERS = {"Rows", "MB", "s", "Rows read", "MB read", "Peak MB", "CPU s"}
# Where a terminal is too narrow for all columns; the other ones say what became of which window.
_LEFT_OUT_FIRST = (
    "SHA-256", "Rev", "Mode", "Run", "Rows read", "MB read", "s", "MB", "CPU s", "Peak MB", "Rows"
)  # fmt: skip
_STYLES = {"exported": "green", "failed": "red", "retried": "yellow"}


@dataclass(frozen=True)
class Period:
    """Which windows are asked for: one that holds a moment, or those between two."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, window: str | None, start: str | None, end: str | None, now: datetime) -> "Period | None":
        """From the command line; None without any option. Raises ValueError naming the option."""
        if window is not None:
            if start is not None or end is not None:
                raise ValueError("--window names one window: leave out --from and --to")
            moment = parse_moment(window, "--window")
            return cls(moment, moment)
        if start is None:
            if end is None:
                return None
            raise ValueError("--to needs --from")
        period = cls(parse_moment(start, "--from"), parse_moment(end, "--to") if end else now)
        if period.start >= period.end:
            raise ValueError(f"--from {iso(period.start)} is not before --to {iso(period.end)}")
        return period

    def keys(self) -> list[str]:
        """Partition keys of the windows in it, of every frequency: a project may have had others."""
        return [f.key(window) for f in Frequency for window in self._windows(f)]

    def _windows(self, frequency: Frequency) -> Iterable[Window]:
        if self.start == self.end:
            return [frequency.window(frequency.floor(self.start))]
        return frequency.windows(self.start, self.end)


class Selection:
    """Which tables and windows are asked for."""

    def __init__(
        self, recorded: Sequence[RecordedTable], names: Sequence[str], period: Period | None
    ) -> None:
        """Raises ValueError for a table that nobody exports."""
        known = sorted({table.name for table in recorded})
        for name in names:
            if name not in known:
                raise ValueError(f"--table {name!r}: exported are {', '.join(known) or 'none'}")
        self._tables = [table for table in recorded if not names or table.name in names]
        self._keys = period and period.keys()

    def attempts(self, instance: dg.DagsterInstance, limit: int) -> list[Attempt]:
        """The newest attempts, newest first."""
        found = [
            attempt
            for table in self._tables
            for attempt in attempts_of_table(instance, table, self._keys, limit)
        ]
        return sorted(found, key=lambda attempt: attempt.at, reverse=True)[:limit]


def costs_of(attempts: Iterable[Attempt], config: Settings) -> QueryCosts:
    """What their queries cost, as far as ClickHouse says."""
    if config.embedded:
        return QueryCosts(unavailable="the embedded engine keeps no system.query_log")
    source = connect(config)
    try:
        ended = [(query_id, a.at) for a in attempts if a.file for query_id in a.file.queries]
        return query_costs(source, ended)
    finally:
        source.close()


def attempts_as_json(attempts: Iterable[Attempt], costs: QueryCosts) -> list[dict[str, object]]:
    """For `--json`; times are ISO, UTC, sizes bytes."""
    return [dict(_fields(attempt, costs)) for attempt in attempts]


def _fields(attempt: Attempt, costs: QueryCosts) -> Iterator[tuple[str, object]]:
    yield from {
        "project": attempt.project,
        "table": attempt.table,
        "window_start": iso(attempt.window.start),
        "window_end": iso(attempt.window.end),
        "at": iso(attempt.at),
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "mode": attempt.mode,
        "run_id": attempt.run_id,
        "revision": attempt.revision,
    }.items()
    file = attempt.file
    cost = costs.of(file.queries) if file else None
    yield from {
        "rows": file.row_count if file else None,
        "bytes": file.size_bytes if file else None,
        "sha256": file.sha256 if file else None,
        "key": file.key if file and file.has_object else None,
        "read_at": file.read_at if file else None,
        "duration_s": file.duration_ms / 1000 if file else None,
        "query_id": file.query_id if file else None,
        "cost": asdict(cost) if cost else None,
        "queries": len(file.queries) if file else None,
        "queries_not_in_log": sum(q not in costs.by_id for q in file.queries) if file else None,
    }.items()


def attempts_table(
    attempts: Sequence[Attempt], costs: QueryCosts, width: int | None
) -> tuple[RichTable, list[str]]:
    """For people: the table, and which columns it lacks to be no wider than `width`; None: all are there."""
    rows = [dict(_cells(attempt, costs)) for attempt in attempts]
    without: list[str] = []
    shown = _table(rows, without)
    for name in _LEFT_OUT_FIRST:
        if width is None or width_of(shown) <= width:
            break
        if rows and name in rows[0]:
            without.append(name)
            shown = _table(rows, without)
    return shown, without


def _table(rows: Sequence[Mapping[str, str]], without: Sequence[str]) -> RichTable:
    shown = RichTable(box=None, pad_edge=False)
    names = [name for name in rows[0] if name not in without] if rows else []
    for name in names:
        shown.add_column(name, no_wrap=True, justify="right" if name in _NUMBERS else "left")
    for row in rows:
        shown.add_row(*(row[name] for name in names))
    return shown


def _cells(attempt: Attempt, costs: QueryCosts) -> Iterator[tuple[str, str]]:
    style = _STYLES.get(attempt.outcome, "default")
    file = attempt.file
    yield "At (UTC)", f"{attempt.at.astimezone(UTC):%Y-%m-%d %H:%M}"
    yield "Project", escape(attempt.project)
    yield "Table", attempt.table
    yield "Window", f"{attempt.window.start:%Y-%m-%d %H:%M}"
    yield "Outcome", f"[{style}]{attempt.outcome}[/{style}]"
    yield "Mode", attempt.mode or "-"
    yield "Run", attempt.run_id[:8]
    yield "Rev", str(attempt.revision or "-")
    yield "Rows", f"{file.row_count:,}" if file else "-"
    yield "MB", _mb(file.size_bytes) if file else "-"
    yield "s", f"{file.duration_ms / 1000:.1f}" if file else "-"
    yield "SHA-256", file.sha256[:8] if file and file.sha256 else "-"
    if costs.unavailable is None:
        cost = costs.of(file.queries) if file else None
        yield "Rows read", f"{cost.read_rows:,}" if cost else "-"
        yield "MB read", _mb(cost.read_bytes) if cost else "-"
        yield "Peak MB", _mb(cost.peak_memory) if cost else "-"
        yield "CPU s", f"{cost.cpu_s:.2f}" if cost else "-"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def failures_of(attempts: Iterable[Attempt]) -> Iterator[str]:
    """A line for each attempt that has a reason; they are too long for the table."""
    for attempt in attempts:
        if attempt.reason:
            window = f"{attempt.window.start:%Y-%m-%d %H:%M}"
            yield f"{attempt.project} {attempt.table} {window} {attempt.outcome}: {attempt.reason}"
