"""A deployment that exports from the server, with a Dagster instance that remembers the sensor's cursor.

Windows are hours before now, because the sensor looks at what is recent by ClickHouse's clock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from langfuse_export.build import build_defs
from langfuse_export.catalog import Catalog
from langfuse_export.exporter import NoProgress, Progress
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.manifest import Manifest
from langfuse_export.naming import asset_key, job_name
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.sensors.late_cursor import LateCursor
from langfuse_export.tables import TABLES, Table
from langfuse_export.telemetry import Telemetry, build_telemetry
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import BlobStore, StoreConfig
from langfuse_worker.clickhouse import ClickHouse, connect
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings
from tests.export.project import project_export
from tests.export.requests import bounds, tags_of
from tests.export.running import run_between
from tests.rows import PROJECT, clock, event, insert, observation, score, trace
from tests.servers.clickhouse import ClickHouseServer

SENSOR = "late_rows_sensor"
TRACES = (TABLES["traces"],)


@dataclass(frozen=True)
class Look:
    """What one tick of the sensor asked for."""

    requests: Sequence[dg.RunRequest]
    skip_reason: str | None

    @property
    def asked(self) -> list[tuple[str, str, list[str]]]:
        """First and last partition and the tables of each request."""
        return [(*bounds(r), [key.path[-1] for key in r.asset_selection or ()]) for r in self.requests]


@dataclass
class Deployment:
    """Project p1, hourly, every table, unless said otherwise."""

    server: ClickHouseServer
    home: Path
    instance: dg.DagsterInstance
    environment: dict[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = tuple(TABLES.values())
    projects: Sequence[ProjectExport] = ()
    postgres: Database | None = None
    progress: Progress = field(default_factory=NoProgress)
    cursor: str | None = None
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def settings(self) -> Settings:
        """The deployment's settings."""
        return self.server.settings(LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S="0.01", **self.environment)

    @cached_property
    def source(self) -> ClickHouse:
        """The worker's client."""
        return connect(self.settings)

    @cached_property
    def telemetry(self) -> Telemetry:
        """The metrics."""
        return build_telemetry(self.settings)

    @cached_property
    def defs(self) -> dg.Definitions:
        """What Dagster loads."""
        return build_defs(
            catalog=Catalog(tuple(self.projects or [self.project()])),
            options=ExportOptions.from_settings(self.settings),
            resources=ExportResources(self.source, self.telemetry, self.progress, postgres=self.postgres),
        )

    def project(self, project_id: str = PROJECT, **changes: Any) -> ProjectExport:
        """An export of a project that began 20 days ago."""
        own = {
            "tables": tuple(self.tables),
            "start": Frequency.DAILY.floor(self.began - timedelta(days=20)),
            "encoding": Encoding(FileFormat.JSONL),
            "destination": StoreConfig(f"file://{self.home.absolute()}/blobs/"),
        }
        return project_export(self.settings, project_id, **{**own, **changes})

    @property
    def first(self) -> ProjectExport:
        """The project that most tests look at."""
        return self.projects[0] if self.projects else self.project()

    def hour(self, ago: int) -> Window:
        """A closed hour; 1 is the newest."""
        return Frequency.HOURLY.window(Frequency.HOURLY.floor(self.began) - timedelta(hours=ago))

    def key(self, ago: int) -> str:
        """The partition key of that hour."""
        return Frequency.HOURLY.key(self.hour(ago))

    def write(self, table: str, *rows: dict[str, Any], at: datetime | None = None) -> None:
        """Insert rows as one part, written now unless the writer's clock says otherwise."""
        written = clock(at or datetime.now(UTC))
        stamps = {"created_at": written, "updated_at": written, "event_ts": written}
        insert(self.server.execute, table, [{**row, **stamps} for row in rows])

    def write_in_each_table(self, at: datetime) -> None:
        """Insert one row of that time into each table."""
        self.write("traces", trace("t", at))
        self.write("observations", observation("o", at))
        self.write("scores", score("s", at))
        self.write("events_full", event("e", at))

    def export(
        self,
        first: str,
        last: str,
        tables: Sequence[dg.AssetKey] | None = None,
        tags: dict[str, str] | None = None,
        project: ProjectExport | None = None,
    ) -> dg.ExecuteInProcessResult:
        """A run of the windows between two partition keys, both included."""
        project = project or self.first
        keys = list(tables or [asset_key(project, table) for table in project.tables])
        job = self.defs.resolve_job_def(job_name(project.frequency))
        return run_between(job, self.instance, keys, (first, last), tags)

    def look(self) -> Look:
        """One tick of the sensor, as the daemon evaluates it; the cursor is kept."""
        repository = self.defs.get_repository_def()
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=repository,
            sensor_name=SENSOR,
            resources={"clickhouse": self.source, "telemetry": self.telemetry},
        ) as context:
            data = repository.get_sensor_def(SENSOR).evaluate_tick(context)
        self.cursor = data.cursor
        return Look(data.run_requests or [], data.skip_message)

    def let_audit_be_due(self) -> None:
        """Have the next tick compare every window."""
        cursor = LateCursor.parse(self.cursor)
        assert cursor.audit.began is not None
        audit = cursor.audit.model_copy(update={"began": cursor.audit.began - timedelta(days=1)})
        self.cursor = cursor.model_copy(update={"audit": audit}).model_dump_json()

    def work_off(self, look: Look, project: ProjectExport | None = None) -> None:
        """Run what a tick asked for, of one project."""
        for request in look.requests:
            assert self.export(*bounds(request), request.asset_selection, tags_of(request), project).success

    def manifest(self, window: Window) -> Manifest:
        """The window's manifest."""
        store = BlobStore(self.first.destination)
        return Manifest.model_validate_json(store.read(self.first.manifest_key(window)))

    def objects(self, table: str, window: Window) -> list[dict[str, Any]]:
        """The rows of a window's object."""
        data = BlobStore(self.first.destination).read(self.first.object_key(TABLES[table], window))
        return [json.loads(line) for line in data.decode().splitlines()]

    def ids(self, table: str, window: Window) -> list[str]:
        """The ids in a window's object, sorted."""
        return sorted(row["id"] for row in self.objects(table, window))

    def materialization(self, table: str, ago: int) -> dict[str, Any]:
        """The newest recorded metadata of an hour."""
        key = asset_key(self.first, TABLES[table])
        records = dg.AssetRecordsFilter(key, asset_partitions=[self.key(ago)])
        [record] = self.instance.fetch_materializations(records, limit=1).records
        assert record.asset_materialization is not None
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    def purposes(self, seen: int) -> list[str]:
        """What the worker's queries were for since there were `seen` requests."""
        comments = [r.parameters.get("log_comment", "") for r in self.server.requests[seen:]]
        return [json.loads(c)["purpose"] for c in comments if "langfuse-export" in c]
