"""Rows as applications send them: on time, late, changed and deleted."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from langfuse_export.windows import EPOCH
from tests.rows import Execute, Row, clock, event, insert, observation, score, trace

MAKE: dict[str, Callable[..., Row]] = {
    "traces": trace,
    "observations": observation,
    "scores": score,
    "events_full": event,
}
# A column of each table that updates change.
CHANGING = {"traces": "output", "observations": "output", "scores": "comment", "events_full": "output"}
MILLISECOND = timedelta(milliseconds=1)


@dataclass
class Traffic:
    """Few rows of every project and table in every step.

    Attributes:
        since: no row is older.
        late: rows that were written long after their time.
        changed: rows that were written again with other text.
        deleted: rows that were written again as deleted.
    """

    execute: Execute
    projects: Sequence[str]
    since: datetime
    late: int = 0
    changed: int = 0
    deleted: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(4))
    _rows: dict[tuple[str, str], list[tuple[str, datetime]]] = field(default_factory=dict)
    _written: datetime = EPOCH
    _count: int = 0

    def send(self, start: datetime, end: datetime) -> None:
        """What arrives in a step; one part a table."""
        for table in MAKE:
            rows = [row for project in self.projects for row in self._of(project, table, start, end)]
            self.write(table, rows)

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Insert rows, written now by the clock of ClickHouse, each later than those before."""
        for row in rows:
            self._written = max(self._written + MILLISECOND, datetime.now(UTC))
            row |= dict.fromkeys(("created_at", "updated_at", "event_ts"), clock(self._written))
        insert(self.execute, table, rows)

    def _of(self, project: str, table: str, start: datetime, end: datetime) -> list[Row]:
        known = self._rows.setdefault((project, table), [])
        fresh = [(self._new_id(), start + (end - start) * self._chance.random()) for _ in range(2)]
        if self._chance.random() < 0.1 and start > self.since:
            self.late += 1
            fresh.append((self._new_id(), self.since + (start - self.since) * self._chance.random()))
        rows = [self._row(project, table, *entity) for entity in fresh]
        if known and self._chance.random() < 0.2:
            self.changed += 1
            rows.append(self._row(project, table, *self._chance.choice(known)))
        if known and self._chance.random() < 0.08:
            self.deleted += 1
            gone = known.pop(self._chance.randrange(len(known)))
            rows.append(self._row(project, table, *gone, deleted=True))
        known += fresh
        return rows

    def _row(self, project: str, table: str, id: str, at: datetime, *, deleted: bool = False) -> Row:
        text = f'{{"said": "{self._chance.random()}, \\u0022Grüße\\u0022\\n"}}'
        row = MAKE[table](id, at, deleted=deleted, metadata={}, **{CHANGING[table]: text})
        if table == "events_full":
            row |= {"metadata_names": ["k"], "metadata_values": [text]}
            del row["metadata"]
        return {**row, "project_id": project}

    def _new_id(self) -> str:
        self._count += 1
        return f"r{self._count:05}"
