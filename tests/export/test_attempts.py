"""What Dagster's event log says of every attempt, the failed ones too."""

from pathlib import Path

import dagster as dg
import pytest

from langfuse_export.attempts import Attempt, attempts_of_table
from langfuse_export.recorded_tables import RecordedTable
from langfuse_export.runs import SIDE_BY_SIDE
from langfuse_export.tables import TABLES
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import UNKNOWN_TABLE, ClickHouseError
from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.settings import Settings
from tests.export.dagster.deployment import NETWORK, START, Deployment, FlakyClickHouse
from tests.rows import observation, trace


@pytest.fixture
def deployment(
    embedded_settings: Settings, engine: EmbeddedClickHouse, instance: dg.DagsterInstance
) -> Deployment:
    """Project p1 with a trace and an observation in its first hour."""
    deployment = Deployment(embedded_settings, engine, instance, engine)
    deployment.insert("traces", trace("t", START))
    deployment.insert("observations", observation("o", START))
    return deployment


def attempts(deployment: Deployment, table: str = "traces", limit: int = 100) -> list[Attempt]:
    """Every attempt of the first project's table."""
    recorded = RecordedTable.of(deployment.first, TABLES[table])
    return attempts_of_table(deployment.instance, recorded, None, limit)


def outcomes(found: list[Attempt]) -> list[tuple[int, str]]:
    """Hour and outcome of attempts, oldest first."""
    return [(attempt.window.start.hour, attempt.outcome) for attempt in reversed(found)]


def test_every_run_of_a_window_is_there_with_its_own_object(deployment: Deployment) -> None:
    first = deployment.run("2026-06-01T00", "2026-06-01T00")
    deployment.insert("traces", trace("late", START))
    second = deployment.run("2026-06-01T00", "2026-06-01T01")

    found = attempts(deployment)

    assert outcomes(found) == [(0, "exported"), (0, "exported"), (1, "exported")]
    newest, again, once = found
    assert [attempt.run_id for attempt in found] == [second.run_id, second.run_id, first.run_id]
    assert once.file is not None
    assert again.file is not None
    assert (once.file.row_count, again.file.row_count) == (1, 2)
    assert once.file.sha256 != again.file.sha256
    assert (once.revision, again.revision, newest.revision) == (1, 2, 1)
    assert {attempt.mode for attempt in found} == {"catchup"}
    assert attempts(deployment, limit=1) == [newest]
    traces = RecordedTable.of(deployment.first, TABLES["traces"])
    assert attempts_of_table(deployment.instance, traces, ["2026-06-01T01"], 100) == [newest]


def test_a_failed_table_has_its_own_reason_and_its_sibling_is_exported(deployment: Deployment) -> None:
    error = ClickHouseError("Table default.observations does not exist", UNKNOWN_TABLE)
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [error])
    deployment.projects = [deployment.project(tables=(TABLES["observations"], TABLES["traces"]))]
    deployment.run("2026-06-01T00", "2026-06-01T00")

    by_table = {table: attempts(deployment, table) for table in ("observations", "traces")}

    failed = {table: found for table, found in by_table.items() if found[0].outcome == "failed"}
    assert len(failed) == 1
    [[attempt]] = failed.values()
    assert attempt.reason == "Table default.observations does not exist"
    assert attempt.file is None
    [[sibling]] = (found for table, found in by_table.items() if table not in failed)
    assert sibling.outcome == "exported"


def test_a_reason_that_all_tables_share_is_that_of_each(deployment: Deployment) -> None:
    error = ClickHouseError("all is lost; later: perhaps", UNKNOWN_TABLE)
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [error] * 2)
    deployment.projects = [deployment.project(tables=(TABLES["observations"], TABLES["traces"]))]
    deployment.run("2026-06-01T00", "2026-06-01T00")

    reasons = [[a.reason for a in attempts(deployment, table)] for table in ("observations", "traces")]

    assert reasons == [["all is lost; later: perhaps"]] * 2


def test_an_attempt_that_the_run_repeats_is_there_beside_the_one_that_worked(deployment: Deployment) -> None:
    error = ClickHouseError("Connection reset", NETWORK)
    # Of both windows together, then of the first by itself.
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [error, error])
    deployment.projects = [deployment.project(tables=(TABLES["events"],))]
    assert deployment.run("2026-06-01T00", "2026-06-01T01").success

    found = attempts(deployment, "events")

    assert sorted(outcomes(found)) == [(0, "exported"), (0, "retried"), (1, "exported")]
    [retried] = [attempt for attempt in found if attempt.outcome == "retried"]
    assert retried.reason == "Connection reset"


def test_windows_that_a_stopped_run_did_not_reach_say_so(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    deployment.projects = [
        deployment.project(
            tables=(TABLES["traces"],), destination=StoreConfig(f"file://{tmp_path}/file/below/")
        )
    ]
    deployment.run("2026-06-01T00", "2026-06-01T05")

    found = attempts(deployment)

    tried = [(n, "failed") for n in range(SIDE_BY_SIDE)]
    assert sorted(outcomes(found)) == [*tried, (4, "not_tried"), (5, "not_tried")]
    assert all("cannot make the directory" in (attempt.reason or "") for attempt in found)


def test_an_earlier_failure_stays_when_the_window_is_exported_later(deployment: Deployment) -> None:
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [ClickHouseError("gone", UNKNOWN_TABLE)])
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]
    deployment.run("2026-06-01T00", "2026-06-01T00")
    deployment.run("2026-06-01T00", "2026-06-01T00")

    assert outcomes(attempts(deployment)) == [(0, "failed"), (0, "exported")]
