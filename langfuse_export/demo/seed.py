"""Fills a database with the demo data, through whatever insert the caller has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from langfuse_export.demo.data import PROJECTS, Batch, batches


@dataclass
class SeedSummary:
    """What was inserted.

    Attributes:
        rows: number of rows by project id and table; every version of a record counts.
    """

    rows: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of rows of all projects and tables."""
        return sum(sum(tables.values()) for tables in self.rows.values())

    def add(self, project: str, batch: Batch) -> None:
        """Count a batch of the project."""
        tables = self.rows.setdefault(project, {})
        tables[batch.table] = tables.get(batch.table, 0) + len(batch.rows)


def seed(
    insert: Callable[[Batch], None],
    *,
    start: datetime,
    days: int,
    on_batch: Callable[[int], None] | None = None,
) -> SeedSummary:
    """Insert the rows of every demo project.

    Args:
        insert: writes one batch into the database.
        start: beginning of the period, timezone-aware.
        days: length of the period.
        on_batch: told the number of rows after each insert, for a progress bar.
    """
    summary = SeedSummary()
    for project in PROJECTS:
        for batch in batches(project, start, days):
            insert(batch)
            summary.add(project.id, batch)
            if on_batch:
                on_batch(len(batch.rows))
    return summary
