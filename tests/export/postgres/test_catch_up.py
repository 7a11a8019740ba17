"""Projects that nobody runs backfills for."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest

from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import RANGE_END_TAG, RANGE_START_TAG, asset_key
from langfuse_export.windows import Frequency
from tests.export.killing import kill_a_run
from tests.export.location import load_location
from tests.export.postgres.deployment import Deployment
from tests.export.requests import bounds

SENSOR = "export_hourly_catch_up_sensor"
HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> datetime:
    """The start of this hour."""
    return Frequency.HOURLY.floor(datetime.now(UTC))


def _ask(deployment: Deployment, location: dg.Definitions) -> list[tuple[datetime, datetime]]:
    """First and last window's start of what the sensor asks for."""
    repository = location.get_repository_def()
    with dg.build_sensor_context(instance=deployment.instance, repository_def=repository) as context:
        requests = repository.get_sensor_def(SENSOR).evaluate_tick(context).run_requests or []
    return [(_start(first), _start(last)) for first, last in map(bounds, requests)]


def _start(key: str) -> datetime:
    return Frequency.HOURLY.window_of_key(key).start


def _key(start: datetime) -> str:
    return Frequency.HOURLY.key(Frequency.HOURLY.window(start))


def _run(deployment: Deployment, location: dg.Definitions, first: datetime, last: datetime) -> bool:
    return deployment.run_loaded(location, deployment.project(), _key(first), _key(last)).success


def _kill_a_run(
    deployment: Deployment,
    location: dg.Definitions,
    first: datetime,
    last: datetime,
    assets: Iterable[dg.AssetKey] = (),
) -> tuple[str, str]:
    """Partition keys of the first and last window of a run that began and vanished."""
    tags = {RANGE_START_TAG: _key(first), RANGE_END_TAG: _key(last)}
    kill_a_run(deployment.instance, location.resolve_job_def("export_hourly"), tags, assets)
    return _key(first), _key(last)


def _health(deployment: Deployment) -> Health:
    return HealthStore(deployment.instance).read(["p1"])["p1"]


def test_it_goes_on_where_langfuse_stopped_until_little_is_left_for_the_schedule(
    deployment: Deployment, now: datetime
) -> None:
    stopped = now - 100 * HOUR
    deployment.add(export_mode="FULL_HISTORY", last_sync_at=(stopped + HOUR / 3).replace(tzinfo=None))
    location = load_location()

    asked = []
    while request := _ask(deployment, location):
        [(first, last)] = request
        assert last - first < 72 * HOUR
        assert _run(deployment, location, first, last)
        asked.append((first, last))
        assert deployment.postgres.row("p1")["last_sync_at"] == (last + HOUR).replace(tzinfo=None)

    assert asked[0][0] == stopped
    assert all(after[0] == before[1] + HOUR for before, after in pairwise(asked))
    assert all(last.hour == 23 for _, last in asked[:-1])  # a run reads each day once
    assert now - asked[-1][1] <= 3 * HOUR


def test_a_project_that_is_up_to_date_paused_or_in_trouble_asks_for_nothing(
    deployment: Deployment, now: datetime
) -> None:
    deployment.add(last_sync_at=now.replace(tzinfo=None))
    deployment.add("behind", last_sync_at=(now - 9 * HOUR).replace(tzinfo=None))
    location = load_location()
    assert len(_ask(deployment, location)) == 1

    deployment.postgres.change("behind", bucket_name="missing")
    location = load_location()
    [(first, last)] = _ask(deployment, location)
    assert not deployment.run_loaded(location, deployment.project("behind"), _key(first), _key(last)).success
    assert _ask(deployment, location) == []


def test_windows_whose_run_was_killed_are_not_passed_over_for_good(
    deployment: Deployment, now: datetime
) -> None:
    deployment.add(last_sync_at=(now - 9 * HOUR).replace(tzinfo=None))
    location = load_location()
    [(first, last)] = _ask(deployment, location)
    killed = _kill_a_run(deployment, location, first, last)

    assert _ask(deployment, location) == []

    windows = _health(deployment).windows
    assert (windows[0], windows[-1]) == killed


def test_windows_of_a_killed_run_that_has_exported_some_tables_are_not_passed_over(
    deployment: Deployment, now: datetime
) -> None:
    deployment.add(last_sync_at=(now - 60 * HOUR).replace(tzinfo=None))
    location = load_location()
    [(first, last)] = _ask(deployment, location)
    assert _run(deployment, location, first, last)
    last_table = asset_key(deployment.project(), deployment.project().tables[-1])
    killed = _kill_a_run(deployment, location, first, last, [last_table])

    _ask(deployment, location)

    windows = _health(deployment).windows
    assert (windows[0], windows[-1]) == killed


def test_all_windows_of_killed_runs_that_a_tick_finds_are_one_failure(
    deployment: Deployment, now: datetime
) -> None:
    deployment.add(last_sync_at=(now - 200 * HOUR).replace(tzinfo=None))
    location = load_location()
    [(first, _)] = _ask(deployment, location)
    killed = _kill_a_run(deployment, location, first, now - 10 * HOUR)

    _ask(deployment, location)

    health = _health(deployment)
    assert (health.windows[0], health.windows[-1]) == killed
    assert health.attempts == 1


def test_what_langfuse_exported_before_is_not_asked_for(deployment: Deployment, now: datetime) -> None:
    """Nor after its frequency has changed: only what comes is exported with the new one."""
    deployment.add(last_sync_at=(now - 5 * HOUR).replace(tzinfo=None), export_start_date=datetime(2026, 1, 1))
    [(first, _)] = _ask(deployment, load_location())
    assert first == now - 5 * HOUR
