"""deploy/dagster.yaml against a real Postgres and a real S3 protocol."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.servers.postgres import PostgresServer
from tests.servers.s3 import REGION, S3Server

ROOT = Path(__file__).parents[2]
BUCKET = "dagster-logs"
TALKATIVE = """
import dagster as dg

@dg.asset
def talkative() -> None:
    print("42 rows")
"""


def read(name: str) -> dict[str, Any]:
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def environment(postgres: PostgresServer, s3: S3Server) -> dict[str, str]:
    """What deploy/dagster.yaml asks for; an empty database and an empty bucket."""
    postgres.create_database("dagster")
    s3.create_bucket(BUCKET)
    return {
        "DAGSTER_POSTGRES_HOST": postgres.host,
        "DAGSTER_POSTGRES_PORT": str(postgres.port),
        "DAGSTER_POSTGRES_USER": postgres.user,
        "DAGSTER_POSTGRES_PASSWORD": postgres.password,
        "DAGSTER_POSTGRES_DB": "dagster",
        "DAGSTER_COMPUTE_LOGS_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL_S3": s3.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": REGION,
    }


@pytest.fixture
def instance(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance that the image's DAGSTER_HOME makes of its environment."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text("utf-8"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(str(tmp_path)) as loaded:
        yield loaded


def test_a_run_is_in_postgres_and_what_it_printed_in_s3(
    instance: dg.DagsterInstance, s3: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    # As a process of its own, like every run: under pytest Dagster leaves what is printed alone.
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-f", "talkative.py", "--select", "*"]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    assert instance.run_storage.get_runs_count() == 1
    [run] = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert instance.get_latest_materialization_event(dg.AssetKey("talkative")) is not None
    assert not list(tmp_path.rglob("*.db"))
    printed = [s3.read(BUCKET, key) for key in s3.keys(BUCKET) if key.endswith(".out")]
    assert printed == [b"42 rows\n"]
    assert all(key.startswith(f"dagster/storage/{run.run_id}/") for key in s3.keys(BUCKET))


@pytest.mark.defect("F11")
def test_one_project_and_backfills_leave_slots_to_the_schedules(instance: dg.DagsterInstance) -> None:
    concurrency = instance.get_concurrency_config()

    assert (concurrency.pool_config.default_pool_limit, str(concurrency.pool_config.pool_granularity)) == (
        2,
        "PoolGranularity.RUN",
    )
    queue = concurrency.run_queue_config
    assert queue is not None
    assert queue.tag_concurrency_limits == [
        {"key": "dagster/backfill", "limit": 6},
        {"key": "dagster/backfill", "value": {"applyLimitPerUniqueValue": True}, "limit": 1},
        {"key": "langfuse/mode", "value": "late", "limit": 4},
    ]
    assert queue.max_concurrent_runs > 6


def test_runs_are_watched_and_retried_as_on_a_laptop() -> None:
    production, laptop = read("deploy/dagster.yaml"), read("dagster.yaml")
    watched = ("run_launcher", "run_monitoring", "run_retries")
    for section in ("telemetry", "nux", "python_logs", "run_queue", "retention", *watched):
        assert production[section] == laptop[section], section
    assert production["concurrency"]["pools"] == laptop["concurrency"]["pools"]


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text("utf-8"))
    with pytest.raises(Exception, match="DAGSTER_POSTGRES_HOST"):
        dg.DagsterInstance.from_config(str(tmp_path))
