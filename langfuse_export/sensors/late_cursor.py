"""What the late-data sensor remembers from tick to tick; Dagster keeps it as the sensor's cursor."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel, Field

from langfuse_export.project import ProjectExport
from langfuse_export.run_requests import consecutive
from langfuse_export.sensors.cursor import Cursor
from langfuse_export.windows import Window

_UNLIMITED = 1 << 30


class Audit(BaseModel, frozen=True):
    """Rounds in which every window of every project is compared, some projects a tick.

    Attributes:
        began: when the last round began; None before the first.
        last: the last project of the round so far; None between rounds.
    """

    began: datetime | None = None
    last: str | None = None

    def advance(
        self, project_ids: Collection[str], now: datetime, period: timedelta, interval: timedelta
    ) -> tuple[list[str], Self]:
        """The projects that are due now, and the audit after them.

        A round begins every `period` and is spread over it, a tick every `interval`. The first begins after
        one period: looks that start without a memory cover everything.
        """
        began = self.began or now
        todo = sorted(p for p in project_ids if self.last is not None and p > self.last)
        if self.last is None:
            if now - began < period or not project_ids:
                return [], type(self)(began=began)
            began, todo = now, sorted(project_ids)
        share = -(-len(project_ids) * interval // period)
        due = todo[:share]
        return due, type(self)(began=began, last=due[-1] if len(todo) > share else None)


class LateCursor(Cursor, frozen=True):
    """The sensor's memory.

    Attributes:
        looked_at: by table, ClickHouse's clock at the last look.
        waiting: by project id and table, windows that were found and not asked for: on their way already,
            or more than a tick may ask for. First and last partition key of each unbroken row.
        failed: project id and table whose windows could not be compared, the longest ago first.
        audit: how far the audit is.
    """

    looked_at: dict[str, datetime] = Field(default_factory=dict)
    waiting: dict[str, dict[str, list[tuple[str, str]]]] = Field(default_factory=dict)
    failed: list[tuple[str, str]] = Field(default_factory=list)
    audit: Audit = Audit()

    def waiting_windows(self, project: ProjectExport) -> Iterator[tuple[str, Window]]:
        """Table and window of what waits; windows of another frequency than the project's are forgotten."""
        for table, rows in self.waiting.get(project.project_id, {}).items():
            for row in rows:
                bounds = project.frequency.windows_of_keys(row)
                if len(bounds) == 2:
                    for window in project.frequency.windows(bounds[0].start, bounds[1].end):
                        yield table, window


def key_rows(project: ProjectExport, windows: Iterable[Window]) -> list[tuple[str, str]]:
    """The windows as first and last partition key of each unbroken row."""
    key = project.frequency.key
    return [(key(first), key(last)) for first, last in consecutive(sorted(windows), _UNLIMITED)]


def cursor_of(
    looked_at: Mapping[str, datetime],
    waiting: Mapping[tuple[str, str], Collection[Window]],
    projects: Mapping[str, ProjectExport],
    audit: Audit,
    failed: Sequence[tuple[str, str]] = (),
) -> LateCursor:
    """The cursor after a tick; `waiting` is by project id and table name, of which `failed` has some."""
    rows: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for (project_id, table), windows in waiting.items():
        if windows:
            rows.setdefault(project_id, {})[table] = key_rows(projects[project_id], windows)
    return LateCursor(looked_at=dict(looked_at), waiting=rows, failed=list(failed), audit=audit)
