"""One project's export, as every catalog reader delivers it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from langfuse_export.formats import Encoding
from langfuse_export.layout import INCOMPLETE, LANGFUSE, MANIFESTS, KeyShape, KeyTemplate
from langfuse_export.tables import Table
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import QueryLimits

OWNERS = ("team:data-platform",)  # of projects that name nobody


@dataclass(frozen=True)
class ProjectExport:
    """What is exported of a project, where to, how often.

    Attributes:
        project_id: Langfuse's project id.
        name: for people; the id where the catalog has no name.
        enabled: False pauses the project: nothing is scheduled.
        start: the first window's start, on the frequency's grid, UTC.
        limits: the deployment's limits, or lower ones that the catalog sets.
        row_group_rows: rows of a Parquet row group at most.
        destination_name: the catalog's name of the destination.
        in_postgres: whether Langfuse's Postgres has the project and hears of its runs.
        catch_up_from: every window from here on is exported without anybody asking for it, and none before,
            UTC. None: the look-back of the schedule.
        timing: when the windows that are due are asked for; None: each one a lag after its end.
        named_collection: with which ClickHouse writes objects itself; None: they pass through the worker.
        skip_empty: whether a table without rows in a window has no object there.
        layout: where objects and manifests lie below the destination's prefix.
        owners: whom Dagster shows as the owners of its assets, as Dagster writes them.
        retention_days: days after which its rows, not its objects, are deleted; None: never.
    """

    project_id: str
    name: str
    enabled: bool
    tables: tuple[Table, ...]
    frequency: Frequency
    start: datetime
    encoding: Encoding
    limits: QueryLimits
    row_group_rows: int
    destination: StoreConfig
    destination_name: str
    in_postgres: bool = False
    catch_up_from: datetime | None = None
    timing: Timing | None = None
    layout: KeyTemplate = LANGFUSE
    named_collection: str | None = None
    skip_empty: bool = False
    owners: tuple[str, ...] = OWNERS
    retention_days: int | None = None

    @property
    def scheduled_from(self) -> datetime:
        """Start of the first window that is exported without anybody asking for it, UTC."""
        return self.catch_up_from or self.start

    def intact_from(self, now: datetime) -> datetime:
        """Where the windows begin that have all their rows, and for another day, until they are read; UTC.

        Earlier ones have lost rows to retention, which objects are to outlive.
        """
        if self.retention_days is None:
            return self.start
        return max(self.start, now - timedelta(days=self.retention_days - 1))

    def object_key(self, table: Table, window: Window) -> str:
        """Key of a table's object below the destination's prefix."""
        return self.layout.key(self.project_id, table.path, window, self.encoding.extension)

    def staging_folder(self, table: Table, window: Window) -> str:
        """Where what is not yet whole and verified waits; no reader's pattern matches it."""
        place = self.object_key(table, window).removesuffix(f".{self.encoding.extension}")
        if self.named_collection is not None:  # ClickHouse takes no key with spaces, braces or stars
            place = hashlib.sha256(place.encode()).hexdigest()[:32]
        return f"{INCOMPLETE}/{place}"

    def manifest_key(self, window: Window) -> str:
        """Key of the window's manifest below the destination's prefix."""
        return self.layout.key(self.project_id, MANIFESTS, window, "json")

    def key_shapes(self) -> list[KeyShape]:
        """What it writes, objects and manifests, whatever the window."""
        store = self.destination
        place = f"{store.endpoint} {store.account_name} {store.scheme}://{store.bucket}/{store.path}"
        names = [(table.path, self.encoding.extension) for table in self.tables] + [(MANIFESTS, "json")]
        shapes = [self.layout.shape(self.project_id, *name) for name in names]
        return [KeyShape(self.project_id, place, self.layout, place + shape) for shape in shapes]

    def table(self, name: str) -> Table:
        """The project's table of that name; raises KeyError."""
        return next(table for table in self.tables if table.name == name)
