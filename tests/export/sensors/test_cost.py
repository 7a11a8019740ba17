"""What exports cost ClickHouse, shown on the assets that they exported."""

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import dagster as dg
import pytest
from structlog.testing import capture_logs

from langfuse_export.naming import asset_key
from langfuse_export.query_cost import QueryCost, query_costs
from langfuse_export.resources import ExportOptions, utc_now
from langfuse_export.sensors import cost, ended_runs
from langfuse_export.tables import TABLES
from tests.export.http.heavy import HEAVY_ROWS, MEMORY, OBSERVATIONS, insert_heavy_observations
from tests.export.location import load_location
from tests.export.project import write_catalog
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import score, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.otlp import OtlpReceiver


@dataclass
class Watch:
    """The sensor of a deployment, evaluated as the daemon does it.

    Attributes:
        later: by how much its clock is ahead, which saves waiting until a run is old enough.
        said: what the last tick said of itself.
    """

    deployment: Deployment
    later: timedelta = timedelta(minutes=2)
    cursor: str | None = None
    said: str | None = None

    @cached_property
    def sensor(self) -> dg.SensorDefinition:
        """The sensor; one process keeps it."""
        options = ExportOptions.from_settings(self.deployment.settings)
        return cost.build_cost_sensor(
            self.deployment.projects or [self.deployment.project()],
            replace(options, now=lambda: utc_now() + self.later),
        )

    def tick(self, killed_after: int | None = None) -> list[dg.AssetObservation]:
        """What one tick recorded; a daemon that is killed has written so many of them, and no cursor."""
        self.deployment.server.execute("SYSTEM FLUSH LOGS query_log")
        with dg.build_sensor_context(
            instance=self.deployment.instance,
            cursor=self.cursor,
            resources={"clickhouse": self.deployment.source, "telemetry": self.deployment.telemetry},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        for event in data.asset_events[:killed_after]:
            self.deployment.instance.report_runless_asset_event(event)
        if killed_after is None:
            self.cursor, self.said = data.cursor, data.skip_message
        return [event for event in data.asset_events if isinstance(event, dg.AssetObservation)]

    def tick_until_idle(self) -> list[dg.AssetObservation]:
        """What ticks recorded until one had nothing more to record."""
        return [event for events in iter(self.tick, []) for event in events]

    def recorded(self, table: str) -> list[dg.AssetObservation]:
        """What stands on a table's page, oldest first."""
        key = asset_key(self.deployment.first, TABLES[table])
        records = self.deployment.instance.fetch_observations(key, limit=1000, ascending=True).records
        return [record.asset_observation for record in records if record.asset_observation]


@pytest.fixture
def watch(deployment: Deployment) -> Watch:
    """The sensor of a deployment of traces."""
    deployment.tables = TRACES
    return Watch(deployment)


def values(observation: dg.AssetObservation) -> dict[str, Any]:
    """Its metadata, as plain values."""
    return {name: value.value for name, value in observation.metadata.items()}


def cost_of(observation: dg.AssetObservation) -> QueryCost:
    """The cost that it shows."""
    shown = values(observation)
    return QueryCost(shown["read_rows"], shown["read_bytes"], shown["peak_memory"], shown["cpu_s"])


def runs_of(observations: list[dg.AssetObservation]) -> list[str]:
    """The runs that they are about."""
    return [values(observation)["run"] for observation in observations]


def test_each_table_of_a_window_shows_what_its_export_cost(deployment: Deployment) -> None:
    watch = Watch(deployment)
    at = deployment.hour(2).start
    deployment.write("traces", *(trace(f"t{n}", at, input="x" * 1000) for n in range(500)))
    deployment.write("scores", score("s", at))
    run = deployment.export(deployment.key(2), deployment.key(2))

    watch.tick()

    assert watch.said == "recorded what 4 tables cost"
    query_id = deployment.materialization("traces", 2)["query_id"]
    expected = query_costs(deployment.source, [(query_id, utc_now())]).by_id[query_id]
    [traces] = watch.recorded("traces")
    assert cost_of(traces) == expected
    assert expected.read_rows == 2 * 500
    assert expected.read_bytes > 500 * 1000
    assert expected.peak_memory > 0
    assert expected.cpu_s > 0
    assert traces.partition == deployment.key(2)
    shown = values(traces)
    assert (shown["queries"], shown["queries_not_in_log"], shown["windows"]) == (1, 0, 1)
    assert shown["run"] == run.run_id
    assert shown["window_start"] == at.timestamp()
    assert shown["window_end"] == deployment.hour(2).end.timestamp()
    assert [cost_of(observation).read_rows for observation in watch.recorded("scores")] == [2]


def test_a_window_that_was_read_in_parts_shows_what_all_of_its_queries_cost(deployment: Deployment) -> None:
    deployment.tables = (OBSERVATIONS,)
    deployment.environment = {
        "LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_MEMORY_USAGE": str(MEMORY),
        "LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS": "1",
    }
    insert_heavy_observations(deployment.server, deployment.hour(2).start)
    run = deployment.export(deployment.key(2), deployment.key(2))
    assert deployment.materialization("observations", 2)["parts"] > 1

    [observation] = Watch(deployment).tick()

    in_log = deployment.server.cost_of_exports(run.run_id, "observations")
    shown = values(observation)
    assert {name: shown[name] for name in in_log} == pytest.approx(in_log)
    assert shown["queries_not_in_log"] == 0
    # One more than the parts: what could not be read at once did cost something as well.
    assert shown["queries"] > deployment.materialization("observations", 2)["parts"]
    assert shown["read_rows"] >= HEAVY_ROWS
    assert shown["read_bytes"] > HEAVY_ROWS * 150_000


def test_a_run_of_many_windows_is_one_observation_of_each_table(watch: Watch) -> None:
    deployment = watch.deployment
    for ago in (4, 3, 2):
        deployment.write("traces", trace(f"t{ago}", deployment.hour(ago).start))
    deployment.export(deployment.key(25), deployment.key(2))

    [observation] = watch.tick()

    assert observation.partition is None
    shown = values(observation)
    assert shown["windows"] == 24
    assert shown["window_start"] == deployment.hour(25).start.timestamp()
    assert shown["window_end"] == deployment.hour(2).end.timestamp()
    found = [deployment.materialization("traces", ago)["query_id"] for ago in range(2, 26)]
    costs = query_costs(deployment.source, [(query_id, utc_now()) for query_id in found]).by_id.values()
    # A day's windows come from one query, whose cost counts once.
    assert shown["queries"] == len(costs) < 24
    assert shown["read_rows"] == sum(c.read_rows for c in costs) >= 3
    assert shown["read_bytes"] == sum(c.read_bytes for c in costs)
    assert shown["peak_memory"] == max(c.peak_memory for c in costs)
    assert shown["cpu_s"] == pytest.approx(sum(c.cpu_s for c in costs))


def test_no_run_is_left_out_or_shown_twice(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = watch.deployment
    deployment.tables = (TABLES["traces"], TABLES["scores"])
    monkeypatch.setattr(cost, "MAX_TABLES", 3)
    monkeypatch.setattr(ended_runs, "_PAGE", 2)
    first = [deployment.export(deployment.key(ago), deployment.key(ago)).run_id for ago in (6, 5, 4)]
    half = watch.tick()
    second = [deployment.export(deployment.key(ago), deployment.key(ago)).run_id for ago in (4, 3)]

    rest = watch.tick_until_idle()

    assert sorted(runs_of(half)) == sorted(first[:1] * 2)
    assert sorted(runs_of(rest)) == sorted([*first[1:], *second] * 2)
    assert watch.said == "no run has exported anything since the last tick"
    assert watch.tick() == []


def test_a_run_with_more_tables_than_a_tick_records_is_recorded_all_the_same(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = watch.deployment
    deployment.tables = tuple(TABLES.values())
    monkeypatch.setattr(cost, "MAX_TABLES", 2)
    deployment.export(deployment.key(2), deployment.key(2))
    watch.tick(4)

    watch.tick_until_idle()

    assert [len(watch.recorded(name)) for name in TABLES] == [1] * 4


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_takes_longer_to_read_than_a_tick_has_is_read_over_several(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    deployment = watch.deployment
    deployment.tables = (TABLES["traces"], TABLES["scores"])
    run = deployment.export(deployment.key(13), deployment.key(2))
    monkeypatch.setattr(ended_runs, "_EVENTS_PAGE", 10)
    monkeypatch.setattr(ended_runs, "READ_FOR_S", -1)

    assert [watch.tick(), watch.tick()] == [[], []]
    assert watch.said == "a long run has been read in part; the next tick goes on with it"
    if restarted:
        del watch.sensor
        assert [watch.tick(), watch.tick()] == [[], []]
    recorded = watch.tick()

    assert runs_of(recorded) == [run.run_id] * 2
    assert [values(observation)["windows"] for observation in recorded] == [12, 12]
    assert watch.tick() == []
    assert watch.said == "no run has exported anything since the last tick"


def test_a_run_that_was_read_in_part_is_forgotten_once_it_has_left_the_look_back(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.deployment.export(watch.deployment.key(13), watch.deployment.key(2))
    monkeypatch.setattr(ended_runs, "_EVENTS_PAGE", 10)
    monkeypatch.setattr(ended_runs, "READ_FOR_S", -1)
    assert watch.tick() == []
    assert watch.said == "a long run has been read in part; the next tick goes on with it"

    watch.later += ended_runs.LOOK_BACK

    assert watch.tick() == []
    assert watch.said == "no run has exported anything since the last tick"


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_daemon_that_is_killed_in_a_tick_shows_no_run_twice(watch: Watch, written: int) -> None:
    deployment = watch.deployment
    deployment.tables = (TABLES["traces"], TABLES["scores"])
    run = deployment.export(deployment.key(2), deployment.key(2))
    watch.tick(written)

    watch.tick()

    shown = [*watch.recorded("traces"), *watch.recorded("scores")]
    assert runs_of(shown) == [run.run_id] * 2
    assert watch.tick() == []


def test_a_run_that_ended_in_two_ways_is_shown_once(watch: Watch) -> None:
    """Dagster fails a run that takes too long, whose process says that it was cancelled."""
    deployment = watch.deployment
    run_id = deployment.export(deployment.key(2), deployment.key(2)).run_id
    run = deployment.instance.get_run_by_id(run_id)
    assert run is not None
    deployment.instance.report_run_failed(run)
    deployment.instance.report_run_canceled(run)

    assert runs_of(watch.tick_until_idle()) == [run_id]


def test_what_a_failed_run_exported_did_cost_something(watch: Watch) -> None:
    deployment = watch.deployment
    deployment.tables = (TABLES["traces"], TABLES["scores"])
    deployment.server.break_next(Fault("refuse", match="FROM `scores` AS t FINAL", code=60, times=9))
    failed = deployment.export(deployment.key(2), deployment.key(2))
    deployment.server.break_next()
    assert not failed.success

    [observation] = watch.tick()

    assert observation.asset_key == asset_key(deployment.first, TABLES["traces"])
    assert runs_of([observation]) == [failed.run_id]


def test_a_run_waits_until_clickhouse_has_logged_its_queries(watch: Watch) -> None:
    watch.later = timedelta(0)
    run = watch.deployment.export(watch.deployment.key(2), watch.deployment.key(2))

    assert watch.tick() == []
    watch.later = timedelta(minutes=2)

    assert runs_of(watch.tick()) == [run.run_id]


def test_runs_of_long_ago_are_not_looked_up(watch: Watch) -> None:
    watch.deployment.export(watch.deployment.key(2), watch.deployment.key(2))
    watch.later = timedelta(days=2)
    seen = len(watch.deployment.server.requests)

    assert watch.tick() == []

    assert watch.deployment.purposes(seen) == []


def test_queries_that_the_log_has_forgotten_are_said_to_be_missing(watch: Watch) -> None:
    watch.deployment.export(watch.deployment.key(2), watch.deployment.key(2))
    watch.deployment.server.execute("SYSTEM FLUSH LOGS query_log")
    watch.deployment.server.execute("TRUNCATE TABLE system.query_log")

    assert watch.tick() == []

    assert watch.said == "recorded what 0 tables cost; the log of this server does not have 1 more"
    assert watch.tick() == []
    assert watch.said == "no run has exported anything since the last tick"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (497, "GRANT SELECT ON system.query_log"),
        (60, "has no system.query_log"),
        (241, "refused by the test"),
    ],
)
def test_a_log_that_may_not_be_read_is_said_once_and_nothing_is_lost(
    watch: Watch, code: int, says: str
) -> None:
    run = watch.deployment.export(watch.deployment.key(2), watch.deployment.key(2))
    watch.deployment.server.break_next(Fault("refuse", "query_id IN", code=code, times=-1))

    with capture_logs() as logs:
        assert [watch.tick(), watch.tick()] == [[], []]
    watch.deployment.server.break_next()

    [line] = logs
    assert (line["event"], line["log_level"]) == ("query_cost_unavailable", "warning")
    assert says in line["error"]
    assert says in (watch.said or "")
    assert runs_of(watch.tick()) == [run.run_id]


def test_costs_are_metrics_as_well(watch: Watch, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    watch.deployment.write("traces", trace("t", watch.deployment.hour(2).start))
    watch.deployment.export(watch.deployment.key(2), watch.deployment.key(2))

    [observation] = watch.tick()

    shown = cost_of(observation)
    prefix = "langfuse.blob_export.query_"
    names = ("read_rows", "read_bytes", "cpu_seconds", "peak_memory_bytes")
    points = [otlp.named(prefix + name)[-1] for name in names]
    assert [p.value for p in points] == [shown.read_rows, shown.read_bytes, shown.cpu_s, shown.peak_memory]
    assert all(p.attributes == {"table": "traces", "mode": "catchup"} for p in points)
    watch.deployment.telemetry.shutdown()  # while the receiver is there


@dg.op
def _elsewhere(context: dg.OpExecutionContext) -> None:
    context.log_event(dg.AssetMaterialization("somewhere"))


@dg.job
def _others() -> None:
    _elsewhere()


def test_other_runs_of_the_instance_are_none_of_its_business(watch: Watch) -> None:
    assert _others.execute_in_process(instance=watch.deployment.instance).success

    assert watch.tick() == []

    assert watch.said == "no run has exported anything since the last tick"


def test_a_cursor_of_another_version_begins_anew(watch: Watch) -> None:
    run = watch.deployment.export(watch.deployment.key(2), watch.deployment.key(2))
    watch.cursor = '{"ended": "yesterday"}'

    assert runs_of(watch.tick()) == [run.run_id]


def test_the_code_location_has_the_sensor_where_there_is_a_log(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_EXPORT_CONFIG", str(write_catalog(deployment.home)))
    assert "query_cost_sensor" not in _sensors()  # the embedded engine keeps none

    for name, value in deployment.server.environment_of_a_worker.items():
        monkeypatch.setenv(name, value)

    assert _sensors()["query_cost_sensor"].default_status is dg.DefaultSensorStatus.RUNNING


def _sensors() -> dict[str, dg.SensorDefinition]:
    """The sensors of the code location, as the environment says."""
    return {sensor.name: sensor for sensor in load_location().get_repository_def().sensor_defs}
