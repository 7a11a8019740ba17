"""What the product's storage of Dagster adds to it, in SQLite and in a real Postgres."""

import itertools
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster_postgres.auth import AwsWifTokenProvider, PgTokenProvider

from langfuse_worker.dagster_storage.postgres import PostgresStorage
from langfuse_worker.dagster_storage.transactions import TransactionalEventLog, one_transaction
from tests.servers.postgres import PostgresServer

_CANCELLING = BulkActionsFilter(statuses=[BulkActionStatus.CANCELING])
_NUMBERS = itertools.count()
_KEYS = ["2026-06-01", "2026-06-02", "2026-06-03"]
_ALL_KEYS = {
    "dagster/asset_partition_range_start": _KEYS[0],
    "dagster/asset_partition_range_end": _KEYS[-1],
}


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2026-06-01"),
    backfill_policy=dg.BackfillPolicy.multi_run(100),
    output_required=False,
)
def table(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Records its partitions together, but for the last one, which it fails to."""
    with one_transaction(context.instance, context.run_id):
        for key in context.partition_keys[:-1]:
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key))
    with one_transaction(context.instance, context.run_id):
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=context.partition_keys[-1]))
        raise ValueError("a fault while it records")
    yield


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition("2026-06-01"),
    backfill_policy=dg.BackfillPolicy.multi_run(100),
    check_specs=[dg.AssetCheckSpec("complete", asset="checked")],
    output_required=False,
)
def checked(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Records its partitions, and is checked once for all of them."""
    for key in context.partition_keys:
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=key))
    yield dg.AssetCheckResult(passed=True)


def create_database(server: PostgresServer) -> str:
    """Make a database of a new name: a process looks into each one once whether it has tables."""
    name = f"events{next(_NUMBERS)}"
    server.create_database(name)
    return name


def postgres_config(server: PostgresServer) -> dict[str, object]:
    """An empty database."""
    name = create_database(server)
    address = f"{server.user}:{quote(server.password, safe='')}@{server.host}:{server.port}"
    return {"postgres_url": f"postgresql+psycopg2://{address}/{name}"}


def sqlite_storage(directory: Path) -> dict[str, object]:
    """A dagster.yaml with SQLite."""
    custom = {"module": "langfuse_worker.dagster_storage.sqlite", "class": "SqliteStorage"}
    return {"storage": {"custom": {**custom, "config": {"base_dir": str(directory / "storage")}}}}


def postgres_storage(server: PostgresServer, *, in_parts: bool) -> dict[str, object]:
    """A dagster.yaml with an empty database; `in_parts` names its parts, as Dagster's Helm chart does."""
    given = {"module": "langfuse_worker.dagster_storage.postgres", "config": postgres_config(server)}
    if not in_parts:
        return {"storage": {"custom": {**given, "class": "PostgresStorage"}}}
    parts = {"run": "PostgresRuns", "event_log": "PostgresEventLog", "schedule": "PostgresSchedules"}
    return {f"{part}_storage": {**given, "class": name} for part, name in parts.items()}


@pytest.fixture(params=["sqlite", "postgres", "postgres in parts"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the product's storage."""
    if request.param == "sqlite":
        content = sqlite_storage(tmp_path)
    else:
        server = request.getfixturevalue("postgres")
        content = postgres_storage(server, in_parts=request.param == "postgres in parts")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(content))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.event_log_storage, TransactionalEventLog)
        yield instance


def events(instance: dg.DagsterInstance, kind: dg.DagsterEventType) -> list[str | None]:
    """The partitions of an asset's events, oldest first."""
    read = (
        instance.fetch_materializations
        if kind is dg.DagsterEventType.ASSET_MATERIALIZATION
        else instance.fetch_planned_materializations
    )
    return [record.partition_key for record in read(table.key, limit=100, ascending=True).records]


@pytest.mark.parametrize("batch", ["0", "2", "200"])
def test_a_run_plans_and_records_the_same_events_in_batches_of_any_size(
    instance: dg.DagsterInstance, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch)

    result = dg.materialize(
        [table],
        instance=instance,
        tags=_ALL_KEYS,
        raise_on_error=False,
    )

    assert not result.success
    assert sorted(map(str, events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED))) == _KEYS
    # What a block did not finish is not there, neither in the asset's history nor in the run's.
    assert events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION) == _KEYS[:-1]
    assert instance.get_materialized_partitions(table.key) == set(_KEYS[:-1])
    [run] = instance.get_runs()
    logged = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert [record.partition_key for record in logged.records] == _KEYS[:-1]
    assert run.status is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("partitions", [{"tags": _ALL_KEYS}, {"partition_key": _KEYS[0]}], ids=["all", "one"])
def test_a_run_has_one_row_for_each_check_and_its_evaluation_fills_it(
    instance: dg.DagsterInstance, partitions: dict[str, Any]
) -> None:
    result = dg.materialize([checked], instance=instance, **partitions)

    assert result.success
    [execution] = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(checked.key, "complete"), limit=100
    )
    assert execution.status is AssetCheckExecutionRecordStatus.SUCCEEDED
    assert execution.run_id == result.run_id


@pytest.mark.parametrize("instance", ["postgres", "postgres in parts"], indirect=True)
def test_transactions_that_record_the_same_assets_in_opposite_order_do_not_wait_for_each_other(
    instance: dg.DagsterInstance,
) -> None:
    both_have_begun = threading.Barrier(2, timeout=30)

    def record(partition: str, order: Sequence[str]) -> None:
        with one_transaction(instance, RUNLESS_RUN_ID):
            for name in order:
                instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=partition))
                if name == order[0]:
                    both_have_begun.wait()

    with ThreadPoolExecutor() as pool:
        recorded = [pool.submit(record, "1", ["a", "b"]), pool.submit(record, "2", ["b", "a"])]
        for each in recorded:
            each.result(60)

    for name in "ab":
        key = dg.AssetKey(name)
        assert instance.get_materialized_partitions(key) == {"1", "2"}
        newest = instance.get_latest_materialization_event(key)
        assert newest is not None
        assert newest.asset_materialization is not None
        assert newest.asset_materialization.partition in ("1", "2")


def test_a_backfill_that_is_cancelled_while_the_daemon_works_on_it_stays_cancelled(
    instance: dg.DagsterInstance,
) -> None:
    backfill = PartitionBackfill(
        "b1", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=0.0
    )
    instance.add_backfill(backfill)
    read = instance.get_backfill("b1")  # as the daemon does, to write it back later
    assert read is not None

    instance.update_backfill(read.with_status(BulkActionStatus.CANCELING))
    instance.update_backfill(read.with_failure_count(1))

    written = instance.get_backfill("b1")
    assert written is not None
    assert (written.status, written.failure_count) == (BulkActionStatus.CANCELING, 1)
    assert [found.backfill_id for found in instance.get_backfills(filters=_CANCELLING)] == ["b1"]

    instance.update_backfill(written.with_status(BulkActionStatus.CANCELED))
    instance.update_backfill(written.with_status(BulkActionStatus.REQUESTED))  # somebody resumes it
    assert instance.get_backfills(filters=_CANCELLING) == []


def test_dagsters_own_storage_is_used_as_it_is(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "dagster")
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        assert not isinstance(instance.event_log_storage, TransactionalEventLog)
        with one_transaction(instance, "run"):
            assert instance.get_runs() == []


class Password(PgTokenProvider):
    """Gives the server's password, and counts who asks: every connection does."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self._password = server.password
        self.connections = 0

    def get_token(self) -> str:
        """See `PgTokenProvider`."""
        self.connections += 1
        return self._password

    def _fetch_token(self) -> tuple[str, float]:
        raise NotImplementedError


def test_a_process_keeps_its_connection_to_postgres_and_replaces_one_that_is_lost(
    postgres: PostgresServer,
) -> None:
    database = create_database(postgres)
    url = f"postgresql+psycopg2://{postgres.user}@{postgres.host}:{postgres.port}/{database}"
    tokens = Password(postgres)
    first = PostgresStorage(url, token_provider=tokens)
    assert first.run_storage.get_runs() == []
    opened = tokens.connections

    second = PostgresStorage(url, token_provider=tokens)
    for storage in (first, second):
        assert storage.run_storage.get_runs() == []
        assert storage.event_log_storage.all_asset_keys() == []
        assert list(storage.schedule_storage.all_instigator_state()) == []
    assert tokens.connections == opened

    postgres.disconnect(database)
    assert first.run_storage.get_runs() == []
    assert tokens.connections == opened + 1


def test_the_token_provider_that_dagster_yaml_names_is_asked_for_passwords(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = create_database(postgres)
    monkeypatch.setattr(AwsWifTokenProvider, "_fetch_token", lambda _: (postgres.password, math.inf))
    address = {"username": postgres.user, "hostname": postgres.host, "port": postgres.port}
    address |= {"db_name": database, "scheme": "postgresql+psycopg2"}
    config = {"postgres_db": address, "auth_provider": {"aws_wif": {"region": "eu-central-1"}}}

    storage = PostgresStorage.from_config_value(None, config)

    assert storage.run_storage.get_runs() == []
