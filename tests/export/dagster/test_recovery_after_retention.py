"""Windows that fail until retention has deleted their rows: objects that stand outlive them."""

from datetime import timedelta

import pytest

from langfuse_export.tables import TABLES
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.dagster.deployment import START, Deployment, FlakyClickHouse, hour
from tests.export.dagster.simulation import Simulation
from tests.rows import trace

KEY = "2026-06-01T05"
NO_TABLE = 60


@pytest.fixture
def simulation(deployment: Deployment) -> Simulation:
    """A project that keeps three days, with a trace in a window."""
    deployment.projects = [deployment.project(tables=(TABLES["traces"],), retention_days=3)]
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [])
    deployment.insert("traces", trace("t1", hour(5).start))
    return Simulation(deployment, START + timedelta(hours=7))


def _export_in_vain(simulation: Simulation) -> None:
    flaky = simulation.deployment.clickhouse
    assert isinstance(flaky, FlakyClickHouse)
    flaky.errors.append(ClickHouseError("Unknown table", NO_TABLE))
    assert not simulation.deployment.run(KEY, KEY).success
    assert simulation.health is not None
    assert simulation.health.windows == (KEY,)


def test_a_window_that_has_its_objects_is_tried_again_only_as_long_as_it_has_its_rows(
    simulation: Simulation,
) -> None:
    assert simulation.deployment.run(KEY, KEY).success
    _export_in_vain(simulation)

    simulation.now = START + timedelta(days=2)
    assert KEY in [request.partition_key for request in simulation.recover()]
    simulation.now = START + timedelta(days=4)
    assert KEY not in [request.partition_key for request in simulation.recover()]
    assert simulation.health is None or simulation.health.windows == ()


def test_a_window_without_objects_is_tried_again_whatever_is_left_of_it(simulation: Simulation) -> None:
    _export_in_vain(simulation)

    simulation.now = START + timedelta(days=4)
    assert KEY in [request.partition_key for request in simulation.recover()]
