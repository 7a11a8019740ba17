"""What lies in the file of an export, to be compared with what ClickHouse has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from langfuse_export.tables import OBSERVATIONS
from tests.servers.clickhouse import ClickHouseServer


@dataclass(frozen=True)
class Content:
    """What lies in the file of an export.

    Attributes:
        rows: all of them.
        deleted: those that ClickHouse has as deleted.
        fingerprint: of everything in the rows that are not deleted.
    """

    rows: int
    deleted: int
    fingerprint: int

    def compared_with(self, true: Self) -> str:
        """In words, how these rows compare with those that FINAL returns."""
        same = "as FINAL" if self.fingerprint == true.fingerprint else "NOT as FINAL"
        return f"{same}, and {self.deleted:,} deleted" if self.deleted else same


def content(server: ClickHouseServer, source: str) -> Content:
    """What a table, query or file holds, as ClickHouse reads it."""
    columns = ", ".join(f"`{column.name}`" for column in OBSERVATIONS.columns)
    [found] = server.rows(
        "SELECT count() AS rows, countIf(gone) AS deleted, sumIf(hash, NOT gone) AS fingerprint FROM ("
        f"SELECT cityHash64(formatRow('JSONEachRow', {columns})) AS hash, "
        f"id IN (SELECT id FROM observations WHERE is_deleted) AS gone FROM {source})"
    )
    return Content(**{name: int(value) for name, value in found.items()})


def content_of_file(server: ClickHouseServer, directory: Path) -> Content:
    """What an export has written."""
    structure = ", ".join(f"`{column.name}` {column.type}" for column in OBSERVATIONS.columns)
    [path] = directory.rglob("*.parquet")
    return content(server, f"file('{path}', 'Parquet', '{structure}')")
