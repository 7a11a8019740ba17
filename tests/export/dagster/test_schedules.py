"""Schedules: what they ask for on time, after a downtime, and what they leave alone."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from langfuse_export.health.store import HealthStore
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.dagster.deployment import START, Deployment, FlakyClickHouse
from tests.export.requests import bounds, tags_of

# 20 minutes after the end of the window 09:00 to 10:00.
TEN_TWENTY = datetime(2026, 6, 1, 10, 20, tzinfo=UTC)
NINE = "2026-06-01T09"
MONDAY_MORNING = datetime(2026, 6, 8, 0, 20, tzinfo=UTC)


@pytest.fixture
def traces_only(deployment: Deployment) -> Deployment:
    """A project with one table, so that runs are short."""
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]
    return deployment


def _tick(deployment: Deployment, at: datetime, frequency: str = "hourly") -> Sequence[dg.RunRequest]:
    return deployment.tick(f"export_{frequency}_schedule", at)


def _set_projects(deployment: Deployment, *projects: ProjectExport) -> None:
    """Change the catalog and load the code location again."""
    deployment.projects = list(projects)
    vars(deployment).pop("defs", None)


def _execute(deployment: Deployment, request: dg.RunRequest) -> None:
    deployment.run(*bounds(request), tags=tags_of(request))


def _launch(deployment: Deployment, request: dg.RunRequest) -> dg.DagsterRun:
    """A run that has started and goes on."""
    first, last = bounds(request)
    tags = dict(request.tags) | ({"dagster/partition": first} if first == last else {})
    return deployment.instance.create_run_for_job(
        deployment.defs.resolve_job_def("export_hourly"),
        tags=tags,
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset(request.asset_selection or ()),
    )


def _catch_up(deployment: Deployment, at: datetime) -> None:
    for request in _tick(deployment, at):
        _execute(deployment, request)


@pytest.mark.defect("F10")
def test_the_newest_closed_window_is_asked_for_before_missed_ones(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY - timedelta(hours=1))

    [request] = _tick(traces_only, TEN_TWENTY)

    assert request.partition_key == NINE
    assert request.tags["dagster/priority"] == "10"
    assert request.tags["dagster/max_runtime"] == "14400"
    assert request.asset_selection == [asset_key(traces_only.first, TABLES["traces"])]


def test_after_a_downtime_the_missed_windows_are_asked_for_without_a_person(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY)

    requests = _tick(traces_only, TEN_TWENTY + timedelta(hours=5))

    assert [bounds(request) for request in requests] == [
        ("2026-06-01T14", "2026-06-01T14"),
        ("2026-06-01T10", "2026-06-01T13"),
    ]
    assert [request.tags["dagster/priority"] for request in requests] == ["10", "5"]
    for request in requests:
        _execute(traces_only, request)
    assert {"2026-06-01T10", "2026-06-01T13", "2026-06-01T14"} <= traces_only.materialized()
    assert _tick(traces_only, TEN_TWENTY + timedelta(hours=5)) == []


def test_one_missed_hour_is_asked_for_too(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY)

    requests = _tick(traces_only, TEN_TWENTY + timedelta(hours=2))

    assert [bounds(request)[0] for request in requests] == ["2026-06-01T11", "2026-06-01T10"]


def test_windows_of_unfinished_runs_are_not_asked_for_again(traces_only: Deployment) -> None:
    for request in _tick(traces_only, TEN_TWENTY):
        _launch(traces_only, request)

    assert _tick(traces_only, TEN_TWENTY) == []


@pytest.mark.defect("D14", "F11")
def test_a_window_that_failed_is_left_to_its_retries_and_to_people(traces_only: Deployment) -> None:
    """Defect D14 of Langfuse: a failing export is started again by every tick, for ever."""
    _catch_up(traces_only, TEN_TWENTY - timedelta(hours=1))
    traces_only.clickhouse = FlakyClickHouse(traces_only.engine, [ClickHouseError("no such table", 60)] * 9)
    del traces_only.defs
    _catch_up(traces_only, TEN_TWENTY)
    assert NINE not in traces_only.materialized()

    assert [bounds(request)[0] for request in _tick(traces_only, TEN_TWENTY + timedelta(hours=1))] == [
        "2026-06-01T10"
    ]


def test_no_window_is_asked_for_before_a_projects_start_or_the_look_back(traces_only: Deployment) -> None:
    starts = START + timedelta(hours=7)
    traces_only.projects = [traces_only.project(tables=(TABLES["traces"],), start=starts)]
    assert [bounds(request) for request in _tick(traces_only, TEN_TWENTY)] == [
        (NINE, NINE),
        ("2026-06-01T07", "2026-06-01T08"),
    ]


def test_the_first_tick_looks_back_over_some_hours_only(traces_only: Deployment) -> None:
    assert [bounds(request) for request in _tick(traces_only, TEN_TWENTY + timedelta(days=3))] == [
        ("2026-06-04T09", "2026-06-04T09"),
        ("2026-06-03T09", "2026-06-04T08"),
    ]


def test_after_a_downtime_longer_than_the_look_back_every_missed_window_is_asked_for(
    traces_only: Deployment,
) -> None:
    _catch_up(traces_only, TEN_TWENTY)
    up_again = TEN_TWENTY + timedelta(days=9)

    lost = _tick(traces_only, up_again)  # with the daemon, before it launches a run
    requests = _tick(traces_only, up_again + timedelta(hours=1))

    assert [bounds(request) for request in lost] == [
        ("2026-06-10T09", "2026-06-10T09"),
        ("2026-06-01T10", "2026-06-04T09"),
        ("2026-06-04T10", "2026-06-07T09"),
        ("2026-06-07T10", "2026-06-10T08"),
    ]
    assert [request.tags["dagster/max_runtime"] for request in lost] == ["14400", "43200", "43200", "42600"]
    assert [bounds(request)[0] for request in requests] == [
        "2026-06-10T10",
        "2026-06-01T10",
        "2026-06-04T10",
        "2026-06-07T10",
    ]


def test_windows_of_a_downtime_whose_runs_are_killed_later_are_not_forgotten(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY)
    up_again = TEN_TWENTY + timedelta(days=9)
    runs = [_launch(traces_only, request) for request in _tick(traces_only, up_again)]
    _tick(traces_only, up_again + timedelta(hours=1))  # while they go on

    for run in runs:
        traces_only.instance.report_run_failed(run)
    _tick(traces_only, up_again + timedelta(hours=2))

    health = HealthStore(traces_only.instance).read([traces_only.first.project_id])
    assert health[traces_only.first.project_id].windows[0] == "2026-06-01T10"


def test_what_a_project_missed_while_it_was_paused_is_asked_for(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY)
    _set_projects(traces_only, replace(traces_only.first, enabled=False))
    assert _tick(traces_only, TEN_TWENTY + timedelta(days=3)) == []

    _set_projects(traces_only, replace(traces_only.first, enabled=True))
    requests = _tick(traces_only, TEN_TWENTY + timedelta(days=3, hours=1))

    assert [bounds(request) for request in requests] == [
        ("2026-06-04T10", "2026-06-04T10"),
        ("2026-06-01T10", "2026-06-04T09"),
    ]


def test_a_project_that_joins_others_is_remembered_too(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY)
    joined = traces_only.project("joined", tables=(TABLES["traces"],), start=TEN_TWENTY.replace(minute=0))
    _set_projects(traces_only, traces_only.first, joined)
    assert _tick(traces_only, TEN_TWENTY) == []

    _set_projects(traces_only, joined)
    requests = _tick(traces_only, TEN_TWENTY + timedelta(days=3))

    assert [bounds(request) for request in requests] == [
        ("2026-06-04T09", "2026-06-04T09"),
        ("2026-06-01T10", "2026-06-04T08"),
    ]


def test_a_project_that_comes_back_to_a_frequency_begins_anew(traces_only: Deployment) -> None:
    """The time between has files of another frequency, which would be exported twice."""
    hourly = traces_only.first
    _catch_up(traces_only, TEN_TWENTY)
    _set_projects(traces_only, replace(hourly, frequency=Frequency.DAILY))
    for request in _tick(traces_only, datetime(2026, 6, 9, 0, 20, tzinfo=UTC), "daily"):
        _execute(traces_only, request)

    _set_projects(traces_only, hourly)
    requests = _tick(traces_only, datetime(2026, 6, 9, 10, 20, tzinfo=UTC))

    assert [bounds(request) for request in requests] == [
        ("2026-06-09T09", "2026-06-09T09"),
        ("2026-06-08T09", "2026-06-09T08"),
    ]


def test_days_of_a_week_that_had_no_end_are_asked_for_when_a_project_becomes_daily(
    traces_only: Deployment,
) -> None:
    _become_weekly(traces_only)
    for request in _tick(traces_only, MONDAY_MORNING, "weekly"):
        _execute(traces_only, request)

    assert _days_after_three_of_a_week(traces_only) == ["2026-06-08", "2026-06-09", "2026-06-10"]


def test_days_of_a_week_that_failed_are_asked_for_when_a_project_becomes_daily(
    traces_only: Deployment,
) -> None:
    """What is said of a window that is too heavy is to choose a shorter frequency."""
    _become_weekly(traces_only)
    traces_only.clickhouse = FlakyClickHouse(traces_only.engine, [ClickHouseError("no such table", 60)] * 9)
    for request in _tick(traces_only, MONDAY_MORNING, "weekly"):
        _execute(traces_only, request)

    assert _days_after_three_of_a_week(traces_only) == [f"2026-06-{day:02}" for day in range(1, 11)]


def test_hours_of_a_downtime_are_asked_for_as_days_when_a_project_becomes_daily(
    traces_only: Deployment,
) -> None:
    hourly = traces_only.first
    _catch_up(traces_only, TEN_TWENTY)
    _set_projects(traces_only, replace(hourly, frequency=Frequency.DAILY))

    requests = _tick(traces_only, datetime(2026, 6, 9, 0, 20, tzinfo=UTC), "daily")

    assert _keys(requests, Frequency.DAILY) == [f"2026-06-{day:02}" for day in range(1, 9)]


def _become_weekly(deployment: Deployment) -> None:
    _set_projects(deployment, replace(deployment.first, frequency=Frequency.WEEKLY))


def _days_after_three_of_a_week(deployment: Deployment) -> list[str]:
    """What the schedule of days asks for, if a project has become daily since Monday."""
    _set_projects(deployment, replace(deployment.first, frequency=Frequency.DAILY))
    return _keys(_tick(deployment, MONDAY_MORNING + timedelta(days=3), "daily"), Frequency.DAILY)


def _keys(requests: Sequence[dg.RunRequest], frequency: Frequency) -> list[str]:
    """Every window that is asked for, in order."""
    spans = [map(frequency.window_of_key, bounds(request)) for request in requests]
    return sorted(frequency.key(w) for a, b in spans for w in frequency.windows(a.start, b.end))


def test_a_tick_of_tomorrow_that_somebody_tries_changes_nothing(traces_only: Deployment) -> None:
    _catch_up(traces_only, TEN_TWENTY)
    traces_only.now = lambda: TEN_TWENTY + timedelta(hours=1)
    del traces_only.defs
    _catch_up(traces_only, TEN_TWENTY + timedelta(hours=1))
    _tick(traces_only, TEN_TWENTY + timedelta(days=20))

    requests = _tick(traces_only, TEN_TWENTY + timedelta(days=6))

    assert [bounds(request)[0] for request in requests] == ["2026-06-07T09", "2026-06-01T11", "2026-06-04T11"]


def test_a_project_that_is_paused_is_never_asked_for(deployment: Deployment) -> None:
    paused, other = deployment.project("paused", enabled=False), deployment.project("other")
    deployment.projects = [paused, other]

    assets = {key.path[1] for r in _tick(deployment, TEN_TWENTY) for key in r.asset_selection or ()}

    assert assets == {"other"}


def test_every_project_of_a_frequency_is_asked_for_on_its_own(deployment: Deployment) -> None:
    daily = {"frequency": Frequency.DAILY}
    projects: list[ProjectExport] = [deployment.project("a", **daily), deployment.project("b", **daily)]
    deployment.projects = [*projects, deployment.project("hourly")]

    requests = _tick(deployment, datetime(2026, 6, 2, 0, 20, tzinfo=UTC), "daily")

    assert [(r.partition_key, len(r.asset_selection or ())) for r in requests] == [("2026-06-01", 4)] * 2
    assert len({request.run_key for request in requests}) == 2


def test_two_evaluations_of_a_tick_have_the_same_run_keys(traces_only: Deployment) -> None:
    keys = [[request.run_key for request in _tick(traces_only, TEN_TWENTY)] for _ in range(2)]
    assert keys[0] == keys[1]


def test_a_window_of_which_somebody_exported_one_table_gets_the_others(deployment: Deployment) -> None:
    deployment.projects = [deployment.project(tables=(TABLES["traces"], TABLES["scores"]))]
    _catch_up(deployment, TEN_TWENTY - timedelta(hours=1))
    assert deployment.run(NINE, NINE, tables=[TABLES["traces"]]).success

    assert [bounds(request) for request in _tick(deployment, TEN_TWENTY)] == [(NINE, NINE)]
    _catch_up(deployment, TEN_TWENTY)

    assert NINE in deployment.materialized("scores")
    assert _tick(deployment, TEN_TWENTY) == []


def test_a_window_of_which_somebody_exports_one_table_now_gets_the_others_in_time(
    deployment: Deployment,
) -> None:
    deployment.projects = [deployment.project(tables=(TABLES["traces"], TABLES["scores"]))]
    _catch_up(deployment, TEN_TWENTY - timedelta(hours=1))
    for table in deployment.first.tables:
        [request] = _tick(deployment, TEN_TWENTY)
        alone = [asset_key(deployment.first, table)]
        run = _launch(deployment, request.with_replaced_attrs(asset_selection=alone))

        assert [bounds(request) for request in _tick(deployment, TEN_TWENTY)] == [(NINE, NINE)]
        deployment.instance.report_run_canceled(run)


def test_tables_of_a_window_whose_run_somebody_terminated_in_between_are_asked_for(
    deployment: Deployment,
) -> None:
    deployment.projects = [deployment.project(tables=(TABLES["traces"], TABLES["scores"]))]
    _catch_up(deployment, TEN_TWENTY - timedelta(hours=1))
    [request] = _tick(deployment, TEN_TWENTY)
    run = _launch(deployment, request)
    assert deployment.run(NINE, NINE, tables=[TABLES["traces"]]).success
    assert _tick(deployment, TEN_TWENTY) == []

    deployment.instance.report_run_canceled(run)

    assert [bounds(request) for request in _tick(deployment, TEN_TWENTY)] == [(NINE, NINE)]
