"""Runs of the assets: windows recorded one by one, retries, subsets, failures."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from langfuse_export.naming import SCHEDULE_TAG, asset_key
from langfuse_export.tables import TABLES
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import UNKNOWN_TABLE, ClickHouseError
from tests.export.dagster.deployment import NETWORK, START, Deployment, FlakyClickHouse, hour
from tests.rows import PROJECT, event, observation, trace


def _hourly_events(deployment: Deployment, hours: int) -> None:
    """As `_hourly_traces`; each window of events is read by a query of its own."""
    rows = [
        event(f"{n}-{m}", START + timedelta(hours=n, minutes=m)) for n in range(hours) for m in range(n + 1)
    ]
    deployment.insert("events_full", *rows)


def _hourly_traces(deployment: Deployment, hours: int) -> None:
    """n + 1 traces in the n-th hour."""
    rows = [
        trace(f"{n}-{m}", START + timedelta(hours=n, minutes=m)) for n in range(hours) for m in range(n + 1)
    ]
    deployment.insert("traces", *rows)


def test_every_window_of_a_run_has_its_own_numbers(deployment: Deployment) -> None:
    _hourly_traces(deployment, 3)

    result = deployment.run("2026-06-01T00", "2026-06-01T02")

    assert result.success
    windows = [deployment.materialization("traces", f"2026-06-01T0{n}") for n in range(3)]
    assert [window["dagster/partition_row_count"] for window in windows] == [1, 2, 3]
    assert [window["source_rows"] for window in windows] == [1, 2, 3]
    assert len({window["query_id"] for window in windows}) == 1  # the day is read once
    assert len({window["sha256"] for window in windows}) == 3
    for n, window in enumerate(windows):
        assert window["dagster/uri"].endswith(f"/{PROJECT}/traces/2026-06-01T0{n + 1}-00-00.parquet")
        assert window["bytes"] > 0
        assert window["duration_s"] >= 0
        assert deployment.ids("traces", hour(n)) == [f"{n}-{m}" for m in range(n + 1)]
    assert len([key for key in deployment.objects() if "/manifests/" in key]) == 3


def test_an_asset_says_what_it_is(deployment: Deployment) -> None:
    deployment.projects = [deployment.project(owners=("team:search", "jane@example.com"))]
    key = asset_key(deployment.first, TABLES["observations"])
    graph = deployment.defs.resolve_asset_graph()
    node = graph.get(key)

    assert key.path == ["langfuse", PROJECT, "observations"]
    assert node.kinds == {"clickhouse", "parquet", "file"}
    assert node.owners == ["team:search", "jane@example.com"]
    assert node.group_name == PROJECT
    assert "start_time" in (node.description or "")
    assert node.pools == {f"export_{PROJECT}"}
    assert node.backfill_policy == dg.BackfillPolicy.multi_run(72)


def test_a_transient_fault_is_retried_without_exporting_finished_windows_again(
    deployment: Deployment,
) -> None:
    _hourly_events(deployment, 3)
    error = ClickHouseError("Connection reset", NETWORK)
    flaky = FlakyClickHouse(deployment.engine, [error])
    deployment.clickhouse = flaky
    deployment.projects = [deployment.project(tables=(TABLES["events"],))]

    result = deployment.run("2026-06-01T00", "2026-06-01T02")

    assert result.success
    hours = [streamed[-5:-3] for streamed in flaky.streamed]
    assert hours == ["00", "00", "01", "02"]
    assert deployment.ids("events", hour(0)) == ["0-0"]


@pytest.mark.defect("D16")
def test_a_table_that_was_exported_is_not_read_again_when_its_sibling_is_retried(
    deployment: Deployment,
) -> None:
    """Defect D16 of Langfuse: every table is read again on every retry."""
    deployment.insert("traces", trace("t", START))
    deployment.insert("observations", observation("o", START))
    flaky = FlakyClickHouse(deployment.engine, [ClickHouseError("Connection reset", NETWORK)])
    deployment.clickhouse = flaky

    assert deployment.run("2026-06-01T00", "2026-06-01T00").success

    tables = sorted(streamed.split()[0] for streamed in flaky.streamed)
    assert len(tables) == 5
    assert len(set(tables)) == 4


def test_a_permanent_fault_is_not_retried_and_leaves_no_object(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t", START))
    error = ClickHouseError("Table traces does not exist", UNKNOWN_TABLE)
    flaky = FlakyClickHouse(deployment.engine, [error] * 9)
    deployment.clickhouse = flaky
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]

    result = deployment.run("2026-06-01T00", "2026-06-01T00")

    assert not result.success
    assert len(flaky.streamed) == 1
    assert deployment.objects() == []
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "Table traces does not exist" in str(failure.step_failure_data.error)


@pytest.mark.defect("D14")
def test_retries_of_a_transient_fault_end(deployment: Deployment) -> None:
    flaky = FlakyClickHouse(deployment.engine, [ClickHouseError("Connection reset", NETWORK)] * 20)
    deployment.clickhouse = flaky
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]

    result = deployment.run("2026-06-01T00", "2026-06-01T00")

    assert not result.success
    assert len(flaky.streamed) == 4


def test_a_failed_run_keeps_the_windows_it_finished(deployment: Deployment) -> None:
    _hourly_events(deployment, 3)
    deployment.projects = [deployment.project(tables=(TABLES["events"],))]
    flaky = FlakyClickHouse(deployment.engine, [])
    deployment.clickhouse = flaky
    assert deployment.run("2026-06-01T00", "2026-06-01T00").success
    error = ClickHouseError("Not enough privileges", 497)
    flaky.errors = [error, error]  # of both windows together, then of the first by itself

    result = deployment.run("2026-06-01T01", "2026-06-01T02")

    assert not result.success
    assert deployment.materialized("events") == {"2026-06-01T00", "2026-06-01T02"}
    assert deployment.ids("events", hour(2)) == ["2-0", "2-1", "2-2"]


def test_a_manifest_appears_with_the_last_table_of_its_window(deployment: Deployment) -> None:
    names = list(TABLES)
    for name in names[:-1]:
        assert deployment.run("2026-06-01T00", "2026-06-01T00", tables=[TABLES[name]]).success
    assert not [key for key in deployment.objects() if "/manifests/" in key]

    assert deployment.run("2026-06-01T00", "2026-06-01T00", tables=[TABLES[names[-1]]]).success

    assert f"{PROJECT}/manifests/2026-06-01T01-00-00.json" in deployment.objects()


def test_a_manifest_in_a_new_destination_names_no_object_of_the_old_one(
    deployment: Deployment, tmp_path: Path
) -> None:
    assert deployment.run("2026-06-01T00", "2026-06-01T00").success
    deployment.projects = [deployment.project(destination=StoreConfig(f"file://{tmp_path}/moved/"))]
    del deployment.defs

    assert deployment.run("2026-06-01T00", "2026-06-01T00", tables=[TABLES["traces"]]).success
    assert deployment.objects() == [f"{PROJECT}/traces/2026-06-01T01-00-00.parquet"]

    assert deployment.run("2026-06-01T00", "2026-06-01T00").success
    assert f"{PROJECT}/manifests/2026-06-01T01-00-00.json" in deployment.objects()


def test_windows_before_a_projects_start_are_left_alone(deployment: Deployment) -> None:
    late = deployment.project("late", start=START + timedelta(hours=2))
    deployment.projects = [deployment.project(), late]

    result = deployment.run("2026-06-01T00", "2026-06-01T03", project=late)

    assert result.success
    assert {key.split("/")[-1][:13] for key in deployment.objects()} == {"2026-06-01T03", "2026-06-01T04"}


@pytest.mark.parametrize(
    ("tags", "mode"), [({}, "catchup"), ({SCHEDULE_TAG: "export_hourly_schedule"}, "steady")]
)
def test_the_mode_says_who_asked(deployment: Deployment, tags: dict[str, str], mode: str) -> None:
    deployment.run("2026-06-01T00", "2026-06-01T00", tags=tags)
    assert deployment.materialization("traces", "2026-06-01T00")["mode"] == mode


@pytest.mark.defect("D15")
def test_one_denied_access_stops_nothing_for_good(deployment: Deployment) -> None:
    """Defect D15 of Langfuse: one refused request disables the export until somebody enables it."""
    blocked = deployment.settings.home / "blocked"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file where the directory should be")
    deployment.projects = [deployment.project(destination=StoreConfig(f"file://{blocked.absolute()}/"))]
    assert not deployment.run("2026-06-01T00", "2026-06-01T00").success

    blocked.unlink()

    assert deployment.run("2026-06-01T00", "2026-06-01T00").success
