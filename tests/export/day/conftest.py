"""The servers of a day, and the daemon that exports from them."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from langfuse_export.windows import Frequency
from tests.export.day.daemon import Daemon
from tests.export.day.deployment import BUCKET, EXPORTS, PROJECTS, Deployment
from tests.export.day.traffic import Traffic
from tests.export.location import load_location
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.langfuse_postgres import LangfusePostgres
from tests.servers.s3 import S3Proxy, S3Server

# Where there is one: a hundred runs write thousands of events, and SQLite waits for the disk after each.
IN_MEMORY = next((path for path in ("/dev/shm",) if Path(path).is_dir()), None)
# Nobody reads what runs print, and to keep it takes Dagster two processes a run.
QUIET = {
    "telemetry": {"enabled": False},
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}


@pytest.fixture
def day() -> datetime:
    """Midnight of a day that is over by the clocks of the servers."""
    return Frequency.DAILY.floor(datetime.now(UTC)) - timedelta(days=2)


@pytest.fixture
def deployment(
    day: datetime,
    langfuse: LangfusePostgres,
    s3: S3Server,
    s3_proxy: S3Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    """The servers before the day begins."""
    s3.create_bucket(BUCKET)
    starts = {"start": f"{day:%F}", "evening": f"{day + timedelta(hours=22):%FT%H:%M}"}
    exports = EXPORTS.format(bucket=BUCKET, endpoint=s3_proxy.url, **starts)
    (tmp_path / "exports.yaml").write_text(exports)
    langfuse.add(
        "steady",
        bucket_name=BUCKET,
        prefix="langfuse/",
        endpoint=s3_proxy.url,
        export_source="TRACES_OBSERVATIONS",
        export_mode="FROM_CUSTOM_DATE",
        export_start_date=day.replace(tzinfo=None),
        export_tuning={"partSizeBytes": 5 << 20},
    )
    with (
        ClickHouseServer(tmp_path / "server") as clickhouse,
        tempfile.TemporaryDirectory(dir=IN_MEMORY) as dagster_home,
        dg.DagsterInstance.local_temp(dagster_home, overrides=QUIET) as instance,
    ):
        environment = {
            **clickhouse.environment_of_a_worker,
            **langfuse.environment_of_a_worker,
            "LANGFUSE_HOME": str(tmp_path / "home"),
            "LANGFUSE_WORKER_ROLE": "export",
            "LANGFUSE_EXPORT_CONFIG": "exports.yaml",
            "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_IPS": "127.0.0.1",
            "LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S": "1",
            "LANGFUSE_BLOB_STORAGE_EXPORT_LATE_INTERVAL_S": str(8 * 3600),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        daemon = Daemon(instance, load_location, day)
        traffic = Traffic(clickhouse.execute, PROJECTS, day)
        yield Deployment(clickhouse, langfuse, s3, s3_proxy, daemon, traffic, tmp_path)
