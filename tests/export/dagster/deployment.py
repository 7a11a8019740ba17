"""A deployment with an embedded engine, a Dagster instance and files as its destination."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from langfuse_export.build import build_defs
from langfuse_export.catalog import Catalog
from langfuse_export.listeners import Listeners, RunListener
from langfuse_export.naming import asset_key, job_name
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions, ExportResources, utc_now
from langfuse_export.tables import TABLES, Table
from langfuse_export.telemetry import build_telemetry
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.clickhouse import ClickHouse, Query, QueryLimits
from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.settings import Settings
from tests.export.project import START, project_export
from tests.export.running import run_between
from tests.rows import PROJECT, insert

NETWORK = 210  # ClickHouse's code of a connection that broke


@dataclass
class FlakyClickHouse:
    """The embedded engine, whose streams of payload raise the given errors first, one each.

    Attributes:
        only: the streams that do so, as `streamed` names them; all by default.
        streamed: table and start of every stream.
    """

    engine: ClickHouse
    errors: list[Exception]
    only: str = ""
    streamed: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def with_limits(self, limits: QueryLimits) -> "FlakyClickHouse":
        """The limits do not matter here."""
        return self

    @contextmanager
    def stream(self, query: Query, output_format: str) -> Iterator[Iterator[bytes]]:
        """Note the query's window; raise the next error instead of the last bytes."""
        name = f"{query.comment.table} {(query.comment.window or '')[:16]}"
        self.streamed.append(name)
        error = self.errors.pop(0) if self.errors and self.only in name else None
        with self.engine.stream(query, output_format) as chunks:
            yield _broken(chunks, error) if error else chunks


def _broken(chunks: Iterator[bytes], error: Exception) -> Iterator[bytes]:
    yield next(chunks)[:100]
    raise error


@dataclass
class Deployment:
    """Project p1, hourly from 1 June 2026, unless said otherwise."""

    settings: Settings
    engine: EmbeddedClickHouse
    instance: dg.DagsterInstance
    clickhouse: ClickHouse | FlakyClickHouse
    projects: Sequence[ProjectExport] = ()
    listeners: Sequence[RunListener] = ()
    now: Callable[[], datetime] = utc_now

    def project(self, project_id: str = PROJECT, **changes: Any) -> ProjectExport:
        """An export of a project."""
        return project_export(self.settings, project_id, **changes)

    @property
    def first(self) -> ProjectExport:
        """The project that most tests look at."""
        return self.projects[0] if self.projects else self.project()

    @cached_property
    def defs(self) -> dg.Definitions:
        """What Dagster loads."""
        resources = ExportResources(
            self.clickhouse,  # type: ignore[arg-type]
            build_telemetry(self.settings),
            listeners=Listeners(tuple(self.listeners)),
        )
        return build_defs(
            catalog=Catalog(tuple(self.projects or [self.project()])),
            options=self.options,
            resources=resources,
        )

    @property
    def options(self) -> ExportOptions:
        """How runs behave."""
        return replace(ExportOptions.from_settings(self.settings), now=self.now)

    def run(
        self,
        first: str,
        last: str,
        *,
        tables: Sequence[Table] | None = None,
        project: ProjectExport | None = None,
        tags: dict[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """A run of the windows between two partition keys, both included."""
        project = project or self.first
        job = self.defs.resolve_job_def(job_name(project.frequency))
        assets = [asset_key(project, table) for table in tables or project.tables]
        return run_between(job, self.instance, assets, (first, last), tags)

    def tick(self, schedule: str, at: datetime) -> Sequence[dg.RunRequest]:
        """What a schedule asks for then, as the daemon evaluates it."""
        repository = self.defs.get_repository_def()
        with dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=at, repository_def=repository
        ) as context:
            return repository.get_schedule_def(schedule).evaluate_tick(context).run_requests or []

    def insert(self, table: str, *rows: dict[str, Any]) -> None:
        """Insert rows as one part."""
        with self.engine.client() as client:
            insert(client.command, table, rows)

    def materialization(self, table: str, partition: str) -> dict[str, Any]:
        """The newest recorded metadata of a window; KeyError if there is none."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key(self.first, TABLES[table]), asset_partitions=[partition]), limit=1
        ).records
        if not records or records[0].asset_materialization is None:
            raise KeyError(partition)
        return {k: v.value for k, v in records[0].asset_materialization.metadata.items()}

    def materialized(self, table: str = "traces") -> set[str]:
        """Partitions that Dagster knows as exported."""
        return self.instance.get_materialized_partitions(asset_key(self.first, TABLES[table]))

    def ids(self, table: str, window: Window) -> list[str]:
        """The ids in a window's object, sorted."""
        key = self.first.object_key(TABLES[table], window)
        path = self.settings.home / "blobs" / key
        return sorted(row["id"] for row in pq.read_table(path, columns=["id"]).to_pylist())

    def objects(self) -> list[str]:
        """Every object in the destination."""
        return BlobStore(self.first.destination).keys("")


def hour(number: int) -> Window:
    """A window of 1 June."""
    return Frequency.HOURLY.window(START.replace(hour=number))
