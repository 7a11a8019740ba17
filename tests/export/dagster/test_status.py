"""How far every table is, as the instance has recorded it."""

from datetime import timedelta

import dagster as dg

from langfuse_export.catalog import Catalog
from langfuse_export.commands.status import TableStatus, table_statuses
from langfuse_export.naming import asset_key
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency, iso
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.dagster.deployment import START, Deployment, FlakyClickHouse
from tests.export.dagster.statements import statements
from tests.rows import trace

HOUR = timedelta(hours=1)
NOW = START + 30 * HOUR


def _statuses(deployment: Deployment) -> list[TableStatus]:
    return table_statuses(deployment.instance, Catalog(tuple(deployment.projects)), NOW)


def test_many_projects_take_no_more_queries_than_few(deployment: Deployment) -> None:
    def queries(count: int) -> int:
        deployment.projects = [deployment.project(f"project-{n}") for n in range(count)]
        for project in deployment.projects:
            for table in project.tables:
                exported = dg.AssetMaterialization(asset_key(project, table), partition="2026-06-01T05")
                deployment.instance.report_runless_asset_event(exported)
        with statements() as sent:
            assert [status.exported_windows for status in _statuses(deployment)] == [1] * 4 * count
        return len([statement for statement in sent if statement.startswith("SELECT")])

    assert queries(2) == queries(12)


def test_projects_of_each_frequency_and_start_are_told_apart(deployment: Deployment) -> None:
    changes = [
        {"frequency": Frequency.HOURLY, "start": START},
        {"frequency": Frequency.HOURLY, "start": START + 3 * HOUR},
        {"frequency": Frequency.DAILY, "start": START},
        {"frequency": Frequency.DAILY, "start": START},
    ]
    deployment.projects = [deployment.project(f"project-{n}", **c) for n, c in enumerate(changes)]
    for project in deployment.projects[:3]:
        key = project.frequency.key(project.frequency.window(START))
        exported = dg.AssetMaterialization(asset_key(project, TABLES["traces"]), partition=key)
        deployment.instance.report_runless_asset_event(exported)

    shown = {s.project: s.last_window for s in _statuses(deployment) if s.table == "traces"}

    assert shown == {
        "project-0": iso(START + HOUR),
        "project-1": None,  # from before its start
        "project-2": iso(START + 24 * HOUR),
        "project-3": None,
    }


def test_rows_are_those_of_the_newest_window_whatever_was_exported_last(deployment: Deployment) -> None:
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]
    deployment.insert("traces", trace("a", START), *(trace(f"b{n}", START + HOUR) for n in range(3)))
    deployment.run("2026-06-01T00", "2026-06-01T01")
    deployment.run("2026-06-01T00", "2026-06-01T00")

    [status] = _statuses(deployment)

    assert (status.last_window, status.rows, status.exported_windows) == (iso(START + 2 * HOUR), 3, 2)


def test_an_attempt_that_leaves_no_object_takes_no_earlier_one_away(deployment: Deployment) -> None:
    deployment.clickhouse = flaky = FlakyClickHouse(deployment.engine, [])
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]
    deployment.insert("traces", trace("a", START + HOUR))
    deployment.run("2026-06-01T00", "2026-06-01T01")
    [before] = _statuses(deployment)
    flaky.errors.append(ClickHouseError("Not enough privileges", 497))
    assert not deployment.run("2026-06-01T01", "2026-06-01T01").success

    [after] = _statuses(deployment)

    assert after.failed_windows == 1
    assert (after.last_window, after.rows, after.exported_windows) == (before.last_window, 1, 2)
