"""What doctor says of Redis and of the tables that consumers write."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from langfuse_ingest.doctor import check_redis, check_tables, ingestion_checks
from langfuse_worker.doctor import Status
from langfuse_worker.settings import Settings
from tests.rows import insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import analyst_with
from tests.servers.redis import RedisServer


@pytest.fixture
def configured(redis: RedisServer) -> Iterator[RedisServer]:
    """The server, whose configuration a test may change."""
    names = ("maxmemory-policy", "appendonly", "save")
    before = {name: str(redis.client.config_get(name)[name]) for name in names}  # type: ignore[index]
    yield redis
    for name, value in before.items():
        redis.client.config_set(name, value)


def settings(redis: RedisServer, **environment: str) -> Settings:
    """A deployment whose queues are in that Redis."""
    return Settings(**{**redis.environment_of_a_worker, **environment})  # type: ignore[arg-type]


def statuses(config: Settings) -> dict[str, Status]:
    """What was found of Redis."""
    return {finding.what: finding.status for finding in check_redis(config)}


def test_a_redis_that_keeps_jobs_is_ok(configured: RedisServer) -> None:
    assert set(statuses(settings(configured)).values()) == {Status.OK}


def test_a_redis_that_throws_jobs_away_is_a_problem(configured: RedisServer) -> None:
    configured.client.config_set("maxmemory-policy", "allkeys-lru")
    configured.client.config_set("appendonly", "no")
    configured.client.config_set("save", "")
    assert statuses(settings(configured)) == {
        "redis": Status.OK,
        "redis: eviction": Status.PROBLEM,
        "redis: persistence": Status.PROBLEM,
    }
    configured.client.config_set("save", "3600 1")
    assert statuses(settings(configured))["redis: persistence"] is Status.WARNING


def test_a_redis_that_does_not_answer_is_a_problem_without_its_password() -> None:
    config = Settings(REDIS_CONNECTION_STRING="redis://:hush@127.0.0.1:1/0")  # type: ignore[call-arg]
    [finding] = check_redis(config)
    assert finding.status is Status.PROBLEM
    assert "127.0.0.1:1" in finding.result
    assert "hush" not in str(finding)


def test_tables_are_those_of_the_write_mode(clickhouse: ClickHouseServer) -> None:
    [_, finding] = check_tables(clickhouse.settings(LANGFUSE_MIGRATION_V4_WRITE_MODE="dual"))
    assert finding.status is Status.OK
    assert "events_full" in finding.result

    [_, finding] = check_tables(clickhouse.settings(CLICKHOUSE_DB="system"))
    assert finding.status is Status.PROBLEM
    assert "system lacks blob_storage_file_log, events_full, scores" in finding.result


def test_a_row_policy_that_hides_stored_rows_from_merges_is_a_problem(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path / "server") as server:
        insert(server.execute, "traces", [trace("t1")])
    users = analyst_with(tmp_path, {}, row_policy={"traces": "environment = 'prod'"})
    with ClickHouseServer(tmp_path / "server", users=users) as server:
        found = list(check_tables(server.settings(LANGFUSE_MIGRATION_V4_WRITE_MODE="dual")))
    [bad] = [finding for finding in found if finding.status is not Status.OK]
    assert "hides rows of traces" in bad.result


def test_a_role_that_does_not_ingest_has_no_checks_of_ingestion() -> None:
    assert ingestion_checks(Settings(LANGFUSE_WORKER_ROLE="export")) == ()  # type: ignore[call-arg]
