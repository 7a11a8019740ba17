"""A deployment as `langfuse-worker start` runs it, with a ClickHouse server and files as its destination."""

import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

import dagster as dg
import yaml

from langfuse_export import definitions
from langfuse_export.catalog import load_catalog
from langfuse_export.checks import check_specs
from langfuse_export.manifest import Manifest
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Frequency, Window
from langfuse_worker.run_lease import lease_until
from langfuse_worker.settings import Settings
from tests.command import WORKER
from tests.export.project import write_catalog
from tests.rows import insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.dagster import DagsterServer
from tests.servers.port import free_port

FREQUENCY = Frequency.EVERY_20_MINUTES
_OF_THE_WORKING_DIRECTORY = {"local_artifact_storage", "compute_logs"}


@dataclass
class Deployment:
    """Projects that export all tables every 20 minutes, with a trace in each window.

    Attributes:
        projects: their ids.
        tick: when their schedule asks for the newest window next; a full minute, UTC.
        dagster_yaml: sections that are not as they are delivered, Dagster's storage for example.
        settings: further variables of the worker.
        destination: where objects go, by default a directory.
        each: further keys of each project in exports.yaml.
    """

    directory: Path
    clickhouse: ClickHouseServer
    projects: Sequence[str]
    tick: datetime
    dagster_yaml: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    destination: Mapping[str, object] | None = None
    each: Mapping[str, object] = field(default_factory=dict)

    @property
    def due(self) -> list[Window]:
        """The windows that the schedule asks for then: the newest one, and those of the hour before it."""
        newest = FREQUENCY.newest_closed(self.tick)
        return list(FREQUENCY.windows(newest.end - timedelta(hours=1) - FREQUENCY.length, newest.end))

    @property
    def backfilled(self) -> list[Window]:
        """Windows of half a day, two days before the tick."""
        day = Frequency.DAILY.floor(self.tick) - timedelta(days=2)
        return list(FREQUENCY.windows(day, day + timedelta(hours=12)))

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the worker."""
        return {
            **self.clickhouse.environment_of_a_worker,
            "LANGFUSE_WORKER_ROLE": "export",
            "LANGFUSE_EXPORT_CONFIG": str(self.directory / "exports.yaml"),
            "LANGFUSE_BLOB_STORAGE_EXPORT_LAG_MS": str(
                (self.tick - self.due[-1].end) // timedelta(milliseconds=1)
            ),
            "LANGFUSE_BLOB_STORAGE_EXPORT_LOOKBACK_HOURS": "1",
            "LANGFUSE_BLOB_STORAGE_EXPORT_LATE_INTERVAL_S": "0",
            "LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN": "12",
            **self.settings,
        }

    def write_catalog(self) -> None:
        """The projects as a person writes them, and a home."""
        each = {"start": self.backfilled[0].start, "frequency": FREQUENCY.value, **self.each}
        projects = [{"id": project, **each} for project in self.projects]
        write_catalog(self.directory, *projects, destination=self.destination)
        (self.directory / "home" / "dagster").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def started(self) -> Iterator[DagsterServer]:
        """Dagster, once it has the projects."""
        self.write_catalog()
        self._write_instance()
        with DagsterServer(self.directory / "home", self.environment, hurry=True) as server:
            server.wait_for(lambda: server.projects() == set(self.projects))
            yield server

    @contextmanager
    def with_code_server(self) -> Iterator[tuple[DagsterServer, subprocess.Popen[bytes]]]:
        """Dagster, and a code server of its own as containers have it, once it has the projects."""
        self.write_catalog()
        self._write_instance()
        home, port = self.directory / "home", free_port()
        location = {"host": "127.0.0.1", "port": port, "location_name": "langfuse_export"}
        (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}))
        environment = {**self.environment, "DAGSTER_HOME": str(home / "dagster")}
        command = [WORKER, "code-server", "-h", "127.0.0.1"]
        command += ["-p", str(port), "-m", definitions.__name__]
        dagster = ("dagster", "dev", "-w", str(home / "workspace.yaml"))
        with (
            (home / "code-server.log").open("w") as log,
            subprocess.Popen(
                command, env={**os.environ, "LANGFUSE_HOME": str(home), **environment}, stdout=log, stderr=log
            ) as code_server,
            DagsterServer(home, environment, hurry=True, command=dagster) as server,
        ):
            server.wait_for(lambda: server.projects() == set(self.projects))
            try:
                yield server, code_server
            finally:
                code_server.terminate()

    def _write_instance(self) -> None:
        delivered = yaml.safe_load(files("langfuse_worker").joinpath("dagster.yaml").read_text())
        instance = self.directory / "home" / "dagster"
        delivered["storage"]["custom"]["config"]["base_dir"] = str(instance)
        kept = {name: delivered[name] for name in delivered.keys() - _OF_THE_WORKING_DIRECTORY}
        (instance / "dagster.yaml").write_text(yaml.safe_dump({**kept, **self.dagster_yaml}))

    def fill(self) -> None:
        """Insert a trace into each window of each project."""
        rows = [
            trace(f"{project} {window}", window.start, project_id=project)
            for project in self.projects
            for window in [*self.backfilled, *self.due]
        ]
        insert(self.clickhouse.execute, "traces", rows)

    def exports(self) -> list[ProjectExport]:
        """The projects as the catalog has them."""
        settings = Settings(**{**self.environment, "LANGFUSE_HOME": str(self.directory / "home")})  # type: ignore[arg-type]
        return list(load_catalog(settings).projects)

    def assets(self) -> list[dg.AssetKey]:
        """The tables of all projects."""
        return [asset_key(project, table) for project in self.exports() for table in project.tables]

    def times_exported(self) -> dict[dg.AssetKey, Counter[str]]:
        """How often each partition of each table was exported, as Dagster recorded it."""
        with self._instance() as instance:
            return {
                asset: Counter(
                    record.partition_key
                    for record in instance.fetch_materializations(asset, limit=10_000).records
                    if record.partition_key
                )
                for asset in self.assets()
            }

    def lease_of(self, run_id: str) -> datetime | None:
        """Until when a run has promised to live."""
        with self._instance() as instance:
            run = instance.get_run_by_id(run_id)
            return lease_until(run) if run else None

    def checks_of(self, run_ids: Collection[str]) -> Counter[str]:
        """How many checks these runs have planned, by what became of them."""
        with self._instance() as instance:
            return Counter(
                record.status.value
                for project in self.exports()
                for spec in check_specs(project)
                for record in instance.event_log_storage.get_asset_check_execution_history(spec.key, 10_000)
                if record.run_id in run_ids
            )

    def _instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.directory / "home" / "dagster"))

    def manifests(self) -> dict[tuple[str, Window], Manifest]:
        """Every manifest, by its project and window."""
        found: dict[tuple[str, Window], Manifest] = {}
        for project in self.exports():
            for window in [*self.backfilled, *self.due]:
                path = self.directory / "blobs" / project.manifest_key(window)
                if path.exists():
                    found[project.project_id, window] = Manifest.model_validate_json(path.read_text())
        return found

    def objects(self) -> set[Path]:
        """Every object but the manifests."""
        found = (self.directory / "blobs").rglob("*.parquet")
        return {path for path in found if path.is_file()}

    def named_objects(self) -> set[Path]:
        """The objects that manifests name; AssertionError if one of them is not what the manifest says."""
        named: set[Path] = set()
        for manifest in self.manifests().values():
            for file in manifest.files:
                path = self.directory / "blobs" / file.key
                assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256, path
                named.add(path)
        return named
