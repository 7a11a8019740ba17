"""Runs over many windows of a day."""

from datetime import timedelta

import pytest

from langfuse_export.naming import asset_key
from langfuse_export.tables import EVENTS, OBSERVATIONS, TRACES
from langfuse_export.windows import Frequency
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.dagster.deployment import NETWORK, START, Deployment, FlakyClickHouse
from tests.rows import event, observation, trace

MANY = 101  # in a window, so that one by itself is worth a query


def _fill(deployment: Deployment, hours: int, events: int = 1) -> None:
    """A row of each table in each hour, or so many events."""
    times = [START + timedelta(hours=n, minutes=5) for n in range(hours)]
    deployment.insert("traces", *(trace(f"t{n}", at) for n, at in enumerate(times)))
    deployment.insert("observations", *(observation(f"o{n}", at) for n, at in enumerate(times)))
    rows = (event(f"e{n}-{k}", at) for n, at in enumerate(times) for k in range(events))
    deployment.insert("events_full", *rows)


def test_each_day_is_read_once_and_every_window_has_its_own_object(deployment: Deployment) -> None:
    _fill(deployment, 26)
    deployment.projects = [deployment.project(tables=(TRACES, OBSERVATIONS, EVENTS))]
    watched = FlakyClickHouse(deployment.engine, [])
    deployment.clickhouse = watched

    result = deployment.run("2026-06-01T22", "2026-06-02T01")

    assert result.success
    assert sorted(watched.streamed) == [
        "events 2026-06-01T22:00",
        "events 2026-06-02T00:00",
        "observations 2026-06-01T22:00",
        "observations 2026-06-02T00:00",
        "traces 2026-06-01T22:00",
        "traces 2026-06-02T00:00",
    ]
    for n in range(22, 26):
        window = Frequency.HOURLY.window(START + timedelta(hours=n))
        ids = [deployment.ids(name, window) for name in ("traces", "observations", "events")]
        assert ids == [[f"t{n}"], [f"o{n}"], [f"e{n}-0"]]
    assert len([key for key in deployment.objects() if "/manifests/" in key]) == 4


def test_windows_of_many_events_have_a_query_each(deployment: Deployment) -> None:
    _fill(deployment, 3, events=MANY)
    deployment.projects = [deployment.project(tables=(TRACES, EVENTS))]
    watched = FlakyClickHouse(deployment.engine, [])
    deployment.clickhouse = watched

    assert deployment.run("2026-06-01T00", "2026-06-01T02").success

    assert sorted(watched.streamed) == [
        "events 2026-06-01T00:00",
        "events 2026-06-01T01:00",
        "events 2026-06-01T02:00",
        "traces 2026-06-01T00:00",
    ]
    assert len(deployment.ids("events", Frequency.HOURLY.window(START))) == MANY


@pytest.mark.defect("D16")
def test_a_retry_reads_only_the_windows_that_are_missing(deployment: Deployment) -> None:
    _fill(deployment, 4, events=MANY)
    deployment.projects = [deployment.project(tables=(TRACES, EVENTS))]
    error = ClickHouseError("Connection reset", NETWORK)
    watched = FlakyClickHouse(deployment.engine, [error], only="events 2026-06-01T02:00")
    deployment.clickhouse = watched

    result = deployment.run("2026-06-01T00", "2026-06-01T03")

    assert result.success
    assert watched.streamed.count("traces 2026-06-01T00:00") == 1
    assert watched.streamed.count("events 2026-06-01T00:00") == 1
    assert watched.streamed.count("events 2026-06-01T02:00") == 2
    for table in (TRACES, EVENTS):
        done = deployment.instance.get_materialized_partitions(asset_key(deployment.first, table))
        assert done == {f"2026-06-01T0{n}" for n in range(4)}
