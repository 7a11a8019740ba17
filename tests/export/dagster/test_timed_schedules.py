"""Schedules by a cron line of the project's own."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from langfuse_export.naming import PRIORITY_TAG, schedule_name
from langfuse_export.project import ProjectExport
from langfuse_export.tables import TABLES
from langfuse_export.tick import NEWEST_PRIORITY
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency, Window
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.dagster.deployment import NETWORK, START, Deployment, FlakyClickHouse
from tests.export.dagster.simulation import Simulation, ticks_from
from tests.export.requests import bounds

AT_NIGHT = Timing("0 2 * * *", "Europe/Berlin")
NIGHTLY = schedule_name(Frequency.HOURLY, AT_NIGHT)


@pytest.fixture
def nightly(deployment: Deployment) -> Deployment:
    """Hourly windows of one table, exported at two in the night in Berlin, which is midnight UTC in June."""
    deployment.projects = [_project(deployment, "p1", AT_NIGHT, start=START + timedelta(hours=20))]
    return deployment


def test_a_night_exports_the_hours_of_the_day_before_in_one_run_and_the_day_asks_for_nothing(
    nightly: Deployment,
) -> None:
    simulation = Simulation(nightly, datetime(2026, 6, 2, 0, 0, tzinfo=UTC))

    simulation.until(datetime(2026, 6, 3, 0, 30, tzinfo=UTC))

    assert simulation.attempts == [
        # The hour that ends at midnight is due 20 minutes later, which is the next night.
        (datetime(2026, 6, 2, 0, 0, tzinfo=UTC), "2026-06-01T20", "2026-06-01T22"),
        (datetime(2026, 6, 3, 0, 0, tzinfo=UTC), "2026-06-01T23", "2026-06-02T22"),
    ]
    assert len(nightly.materialized()) == 27


def test_a_night_that_was_missed_is_made_up_for_by_the_next(nightly: Deployment) -> None:
    requests = _tick(nightly, datetime(2026, 6, 3, 0, 0, tzinfo=UTC))

    assert [(*bounds(request), request.tags[PRIORITY_TAG]) for request in requests] == [
        ("2026-06-01T23", "2026-06-02T22", "10"),
        ("2026-06-01T20", "2026-06-01T22", "5"),
    ]


@pytest.mark.parametrize(
    ("before", "hours"),
    [(datetime(2026, 3, 28, 1, 0, tzinfo=UTC), 24), (datetime(2026, 10, 24, 0, 0, tzinfo=UTC), 25)],
    ids=["into summer", "into winter"],
)
def test_no_hour_is_lost_or_asked_for_twice_when_clocks_change(
    deployment: Deployment, before: datetime, hours: int
) -> None:
    """In spring there is no two o'clock: the tick is at three, which is the same moment."""
    deployment.projects = [_project(deployment, "p1", AT_NIGHT, start=before - timedelta(days=7))]
    schedule = deployment.defs.get_repository_def().get_schedule_def(
        schedule_name(Frequency.HOURLY, AT_NIGHT)
    )
    ticks = ticks_from(schedule, before)
    nights = [next(ticks) for _ in range(4)]

    asked = [_newest(_tick(deployment, night)) for night in nights]

    assert [night.astimezone(ZoneInfo("Europe/Berlin")).hour for night in nights].count(2) >= 3
    assert nights[1] - nights[0] == timedelta(hours=hours)
    assert len(asked[1]) == hours
    every = [hour for night in asked for hour in night]
    assert every == list(Frequency.HOURLY.windows(every[0].start, nights[3] - timedelta(hours=1)))


def test_projects_share_a_schedule_if_frequency_cron_and_zone_are_the_same(deployment: Deployment) -> None:
    daily = {"frequency": Frequency.DAILY}
    deployment.projects = [
        _project(deployment, "a", AT_NIGHT),
        _project(deployment, "b", AT_NIGHT),
        _project(deployment, "c", Timing("0 2 * * *")),
        _project(deployment, "d", AT_NIGHT, **daily),
        _project(deployment, "e", None),
    ]

    schedules = deployment.defs.get_repository_def().schedule_defs

    by_name = {s.name: (s.job_name, s.cron_schedule, s.execution_timezone) for s in schedules}
    assert by_name == {
        NIGHTLY: ("export_hourly", "0 2 * * *", "Europe/Berlin"),
        schedule_name(Frequency.HOURLY, Timing("0 2 * * *")): ("export_hourly", "0 2 * * *", "UTC"),
        schedule_name(Frequency.DAILY, AT_NIGHT): ("export_daily", "0 2 * * *", "Europe/Berlin"),
        "export_hourly_schedule": ("export_hourly", "20 * * * *", "UTC"),
    }
    assert {s.default_status for s in schedules} == {dg.DefaultScheduleStatus.RUNNING}
    requests = _tick(deployment, datetime(2026, 6, 2, 0, 0, tzinfo=UTC))
    assert {key.path[1] for request in requests for key in request.asset_selection or ()} == {"a", "b"}


def test_what_failed_in_the_night_is_tried_again_at_once(nightly: Deployment) -> None:
    nightly.clickhouse = FlakyClickHouse(nightly.engine, [ClickHouseError("no such table", 60)] * 4)
    simulation = Simulation(nightly, datetime(2026, 6, 2, 0, 0, tzinfo=UTC))

    simulation.until(datetime(2026, 6, 2, 1, 0, tzinfo=UTC))

    assert [at.minute for at, *_ in simulation.attempts][:2] == [0, 5]
    assert simulation.health is None
    assert nightly.materialized() == {f"2026-06-01T{hour}" for hour in (20, 21, 22)}


def test_a_project_that_works_again_is_asked_for_what_the_nights_made_due(nightly: Deployment) -> None:
    flaky = FlakyClickHouse(nightly.engine, [ClickHouseError("timeout", NETWORK)] * 500)
    nightly.clickhouse = flaky
    simulation = Simulation(nightly, datetime(2026, 6, 2, 0, 0, tzinfo=UTC))
    simulation.until(datetime(2026, 6, 3, 10, 0, tzinfo=UTC))
    assert nightly.materialized() == set()
    flaky.errors.clear()

    simulation.until(datetime(2026, 6, 3, 20, 0, tzinfo=UTC))

    assert simulation.health is None
    # Up to what the last night made due, though it is evening.
    assert max(nightly.materialized()) == "2026-06-02T22"
    assert len(nightly.materialized()) == 27


def _project(deployment: Deployment, id: str, timing: Timing | None, **changes: Any) -> ProjectExport:
    return deployment.project(id, tables=(TABLES["traces"],), timing=timing, **changes)


def _tick(deployment: Deployment, at: datetime) -> Sequence[dg.RunRequest]:
    return deployment.tick(NIGHTLY, at)


def _newest(requests: Sequence[dg.RunRequest]) -> list[Window]:
    """The windows that are asked for first."""
    spans = [bounds(request) for request in requests if request.tags[PRIORITY_TAG] == NEWEST_PRIORITY]
    windows = [(Frequency.HOURLY.window_of_key(a), Frequency.HOURLY.window_of_key(b)) for a, b in spans]
    return [window for a, b in windows for window in Frequency.HOURLY.windows(a.start, b.end)]
