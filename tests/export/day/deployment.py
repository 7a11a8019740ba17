"""Three projects on one ClickHouse and one bucket: in windows of 20 minutes, an hour, a day.

That of 20 minutes begins in the evening. That of an hour is set up in Langfuse, the others in exports.yaml.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from langfuse_export.catalog import Catalog, load_catalog
from langfuse_export.manifest import Manifest
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import Window
from langfuse_worker.settings import Settings
from tests.export.comparing import Cells, exported_rows, stored_rows
from tests.export.day.daemon import Daemon
from tests.export.day.traffic import Traffic
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.langfuse_postgres import LangfusePostgres
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

BUCKET = "a-day"
PROJECTS = ("fast", "steady", "slow")
EXPORTS = """
destinations:
  bucket:
    url: s3://{bucket}/langfuse/
    endpoint: {endpoint}
    region: eu-central-1
    access_key_id: key
    secret_access_key: secret
    part_bytes: 5242880
projects:
  - {{id: fast, destination: bucket, frequency: every_20_minutes, format: jsonl, compression: gzip,
      tables: [traces, events], start: {evening}}}
  - {{id: slow, destination: bucket, frequency: daily, format: csv, tables: [observations, scores],
      start: {start}}}
"""
LAG = timedelta(milliseconds=Settings().export_lag_ms)
DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class Deployment:
    """Servers, traffic, and the daemon that exports."""

    clickhouse: ClickHouseServer
    langfuse: LangfusePostgres
    s3: S3Server
    proxy: S3Proxy
    daemon: Daemon
    traffic: Traffic
    scratch: Path

    @property
    def catalog(self) -> Catalog:
        """What is exported."""
        return load_catalog(Settings())

    def deny(self, project: str) -> None:
        """The bucket refuses what the project writes."""
        for method in ("PUT", "POST"):
            self.proxy.faults.append(S3Fault(method, f"/langfuse/{project}/", status=403, body=DENIED))

    def allow(self, project: str) -> None:
        """The bucket takes everything again, now that the project's owner has given Langfuse another key."""
        self.proxy.faults.clear()
        self.langfuse.change(project, access_key_id="another")
        self.daemon.reload()

    def keys(self, project: ProjectExport) -> set[str]:
        """Keys of the project's objects and manifests, below the prefix."""
        keys = (key.removeprefix("langfuse/") for key in self.s3.keys(BUCKET))
        return {key for key in keys if key.startswith(f"{project.project_id}/")}

    def read(self, key: str) -> bytes:
        """An object by its key below the prefix."""
        return self.s3.read(BUCKET, f"langfuse/{key}")

    def closed(self, project: ProjectExport) -> list[Window]:
        """The windows that are due by the clock of the daemon."""
        until = project.frequency.floor(self.daemon.now - LAG)
        return list(project.frequency.windows(project.start, until))

    def manifest(self, project: ProjectExport, window: Window) -> Manifest:
        """A window's manifest."""
        return Manifest.model_validate_json(self.read(project.manifest_key(window)))

    def exported(self, project: ProjectExport, table: Table, window: Window) -> list[Cells]:
        """The rows of an object."""
        data = self.read(project.object_key(table, window))
        return exported_rows(self.clickhouse, table, project.encoding, data, self.scratch)

    def union(self, project: ProjectExport, table: Table) -> Counter[str]:
        """The rows of all objects of a table."""
        windows = self.closed(project)
        return Counter(repr(row) for window in windows for row in self.exported(project, table, window))

    def stored(self, project: ProjectExport, table: Table) -> Counter[str]:
        """The rows that ClickHouse has from the project's start to the end of its newest closed window."""
        until = self.closed(project)[-1].end
        time = f"t.{table.time_column}"
        condition = f"project_id = '{project.project_id}'"
        condition += f" AND {time} >= '{project.start:%F %T}' AND {time} < '{until:%F %T}'"
        return Counter(map(repr, stored_rows(self.clickhouse, table, project.encoding, condition)))

    def differing_files(self, project: ProjectExport, window: Window) -> Iterator[str]:
        """Keys of the manifest's files that are not the objects that are there."""
        for file in self.manifest(project, window).files:
            key = file.key.removeprefix("langfuse/")
            data = self.read(key)
            table = next(table for table in project.tables if table.path == file.table)
            rows = exported_rows(self.clickhouse, table, project.encoding, data, self.scratch)
            found = (len(data), hashlib.sha256(data).hexdigest(), len(rows))
            if found != (file.size_bytes, file.sha256, file.row_count):
                yield file.key
