"""Which windows of the late-rows sensor's reach may have changed since they were exported."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from langfuse_export.changes import Changes, Slot
from langfuse_export.project import ProjectExport
from langfuse_export.resources import LateOptions
from langfuse_export.sensors import late_time
from langfuse_export.sensors.late_cursor import Audit, LateCursor
from langfuse_export.sensors.late_time import TickTime
from langfuse_export.tables import ALL_TABLES
from langfuse_export.windows import Frequency, Window
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError

log = structlog.get_logger()

# Project id and table name.
ProjectTable = tuple[str, str]


@dataclass
class Suspects:
    """Windows that may have changed, by project and table, each with its latest change if that is known."""

    by_table: dict[ProjectTable, dict[Window, datetime | None]] = field(default_factory=dict)

    def add(self, project_id: str, table: str, window: Window, changed: datetime | None = None) -> None:
        """Suspect a window. Without a change it is compared in any case."""
        known = self.by_table.setdefault((project_id, table), {})
        earlier = known.get(window, changed)
        known[window] = max(earlier, changed) if earlier and changed else None

    def in_order(self, failed: Sequence[ProjectTable]) -> Iterator[tuple[ProjectTable, set[Window]]]:
        """The suspects of each project's table, those with the oldest window first.

        Last come those that failed, the longest ago first: none of them is ever in the way of others.
        """
        turn = {table: number for number, table in enumerate(failed, 1)}
        order = sorted(self.by_table, key=lambda table: (turn.get(table, 0), min(self.by_table[table])))
        yield from ((table, set(self.by_table[table])) for table in order)


@dataclass(frozen=True)
class Search:
    """Fills `suspects`, from what waits, what was written lately, and the audit.

    Attributes:
        clickhouse: with the limits of exports.
        projects: those that are enabled, by id.
        frequencies: theirs.
        time: the tick's.
        unread: tables that ClickHouse refused to look at.
    """

    clickhouse: ClickHouse
    projects: Mapping[str, ProjectExport]
    frequencies: Collection[Frequency]
    time: TickTime
    suspects: Suspects = field(default_factory=Suspects)
    unread: list[str] = field(default_factory=list)

    def left_by(self, cursor: LateCursor) -> None:
        """Suspect what waits; beyond the look-back too, for it was young enough when it was found."""
        for project in self.projects.values():
            for table, window in cursor.waiting_windows(project):
                if window.start >= self._first(project) and _has_table(project, table):
                    self.suspects.add(project.project_id, table, window)

    def look(self, looked_at: Mapping[str, datetime]) -> dict[str, datetime]:
        """Suspect the windows in which rows were written since the last look; tables and time of this one.

        A table that cannot be looked at keeps its time. It comes last the next time, and each may take its
        share of what is left, so that the others are looked at all the same.

        Args:
            looked_at: tables and time of the last one.
        """
        names = [n for n in ALL_TABLES if any(_has_table(p, n) for p in self.projects.values())]
        if not names:
            return {}
        changes = Changes.of(self.clickhouse, self.time.left_of(late_time.LOOK_FOR_S))
        newest = changes.newest_parts([ALL_TABLES[name] for name in names])
        after = {name: moment for name, moment in looked_at.items() if name in names}
        names.sort(key=lambda name: looked_at.get(name, self.time.oldest), reverse=True)
        for done, name in enumerate(names):
            share = self.time.left_of(late_time.LOOK_FOR_S) / (len(names) - done)
            try:
                self._look_at(name, looked_at.get(name), newest.get(name), share)
            except ClickHouseError as error:
                log.warning("late_rows_look_failed", table=name, error=str(error))
                self.unread.append(name)
            else:
                after[name] = self.time.now
        return after

    def audit(self, audit: Audit, late: LateOptions) -> Audit:
        """Suspect every window of the projects whose turn it is; the audit as it stands then."""
        if late.audit_hours == 0:
            return audit
        period, interval = timedelta(hours=late.audit_hours), timedelta(seconds=late.interval_s)
        due, audit = audit.advance(self.projects, self.time.now, period, min(interval, period))
        for project in map(self.projects.__getitem__, due):
            for window in project.frequency.windows(self.time.oldest, self.time.now):
                for table in project.tables:
                    self._suspect(project, table.name, window, None)
        return audit

    def _look_at(
        self,
        name: str,
        looked_at: datetime | None,
        newest_part: datetime | None,
        within_s: float,
    ) -> None:
        between = Window(
            min(frequency.floor(self.time.oldest) for frequency in self.frequencies),
            max(frequency.floor(self.time.now) for frequency in self.frequencies),
        )
        since = (looked_at or between.start) - self.time.margin
        if newest_part and newest_part < since.replace(microsecond=0):
            return  # nothing has been written at all
        ids = [p.project_id for p in self.projects.values() if _has_table(p, name)]
        found = Changes.of(self.clickhouse, within_s).written_since(
            ALL_TABLES[name], ids, since, between, recent_parts=newest_part is not None
        )
        for slot, changed in found.items():
            self._suspect_slot(name, slot, changed)

    def _suspect_slot(self, table: str, slot: Slot, changed: datetime) -> None:
        project = self.projects.get(slot.project_id)
        if project is None:
            return
        frequency = project.frequency
        window = frequency.window(frequency.floor(slot.start))
        # No export reads before its window ends.
        if changed >= window.end - self.time.margin:
            self._suspect(project, table, window, changed)

    def _suspect(self, project: ProjectExport, table: str, window: Window, changed: datetime | None) -> None:
        in_reach = self.time.oldest < window.end <= self.time.now and window.start >= self._first(project)
        if in_reach and _has_table(project, table):
            self.suspects.add(project.project_id, table, window, changed)

    def _first(self, project: ProjectExport) -> datetime:
        return project.intact_from(self.time.now)


def _has_table(project: ProjectExport, name: str) -> bool:
    return any(table.name == name for table in project.tables)
