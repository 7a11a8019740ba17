"""A whole export: rows of Langfuse's Postgres, a ClickHouse server, an S3 server, a Dagster instance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from langfuse_export.catalog import load_catalog
from langfuse_export.naming import asset_key, job_name
from langfuse_export.project import ProjectExport
from langfuse_worker.settings import Settings
from tests.export.location import load_location
from tests.export.running import run_between
from tests.rows import insert
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.langfuse_postgres import LangfusePostgres
from tests.servers.s3 import S3Server


@dataclass
class Deployment:
    """The servers, and what a worker does with them in this process."""

    postgres: LangfusePostgres
    clickhouse: ClickHouseServer
    s3: S3Server
    instance: dg.DagsterInstance

    def environment(self, home: Path) -> dict[str, str]:
        """The variables of a worker."""
        return {
            **self.postgres.environment_of_a_worker,
            **self.clickhouse.environment_of_a_worker,
            "LANGFUSE_HOME": str(home),
            "LANGFUSE_WORKER_ROLE": "export",
            "LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S": "0.01",
            "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_IPS": "127.0.0.1",
        }

    def add(self, project: str = "p1", **columns: Any) -> None:
        """A project that exports events and scores, hourly since 1 June 2026."""
        row = {
            "endpoint": self.s3.url,
            "export_mode": "FROM_CUSTOM_DATE",
            "export_start_date": datetime(2026, 6, 1),
            **columns,
        }
        self.postgres.add(project, **row)

    def insert(self, table: str, *rows: dict[str, Any]) -> None:
        """Insert rows into ClickHouse as one part."""
        insert(self.clickhouse.execute, table, rows)

    def project(self, project: str = "p1") -> ProjectExport:
        """The project as the catalog has it now."""
        return load_catalog(Settings()).project(project)

    def run(
        self, first: str, last: str, *, project: str = "p1", tables: Sequence[str] = ("scores", "events")
    ) -> dg.ExecuteInProcessResult:
        """A run of the windows between two partition keys, both included, in a fresh code location."""
        return self.run_loaded(load_location(), self.project(project), first, last, tables)

    def run_loaded(
        self,
        location: dg.Definitions,
        project: ProjectExport,
        first: str,
        last: str,
        tables: Sequence[str] = ("scores", "events"),
    ) -> dg.ExecuteInProcessResult:
        """The same in a code location that was loaded before."""
        job = location.resolve_job_def(job_name(project.frequency))
        assets = [asset_key(project, project.table(name)) for name in tables]
        return run_between(job, self.instance, assets, (first, last))

    def objects(self) -> list[str]:
        """Keys of the objects in the bucket."""
        return self.s3.keys("exports")

    def cursor(self, project: str = "p1") -> str | None:
        """Hour of the project's `last_sync_at`, such as 03T15:00."""
        moment = self.postgres.row(project)["last_sync_at"]
        return f"{moment:%dT%H:%M}" if moment else None


def settings_of(server: LangfusePostgres, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    """A deployment whose catalog is Postgres, and what the other variables name."""
    for name, value in {**server.environment_of_a_worker, **environment}.items():
        monkeypatch.setenv(name, value)
    return Settings()
