"""Rows that change after their window's export reach the bucket, once, and at a small cost."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import LATE, MODE_TAG, asset_key
from langfuse_export.runs import run_mode
from langfuse_export.sensors.late_cursor import LateCursor
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency, Window
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import PROJECT, event, observation, score, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.otlp import OtlpReceiver

LATE_SETTING = "LANGFUSE_BLOB_STORAGE_EXPORT_LATE_"

Change = Callable[[Deployment, datetime], None]
CHANGES: dict[str, tuple[str, Change, list[str]]] = {
    "late trace": ("traces", lambda d, at: d.write("traces", trace("late", at)), ["late", "t"]),
    "late score on an old trace": (
        "scores",
        lambda d, at: d.write("scores", score("late", at, trace_id="t")),
        ["late", "s"],
    ),
    "late event": ("events", lambda d, at: d.write("events_full", event("late", at)), ["e", "late"]),
    "update": (
        "observations",
        lambda d, at: d.write("observations", observation("o", at, output="cost and end came later")),
        ["o"],
    ),
    "tombstone": ("traces", lambda d, at: d.write("traces", trace("t", at, deleted=True)), []),
}


def _one_row_in_each_table(deployment: Deployment, at: datetime) -> None:
    deployment.write("traces", trace("t", at))
    deployment.write("observations", observation("o", at))
    deployment.write("scores", score("s", at))
    deployment.write("events_full", event("e", at))


@pytest.mark.defect("D2")
@pytest.mark.parametrize(("table", "change", "ids"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_after_the_export_reaches_the_bucket_once(
    deployment: Deployment, table: str, change: Change, ids: list[str]
) -> None:
    window = deployment.hour(5)
    at = window.start + timedelta(minutes=30)
    _one_row_in_each_table(deployment, at)
    assert deployment.export(deployment.key(6), deployment.key(4)).success
    first = {file.table: file for file in deployment.manifest(window).files}
    assert deployment.look().requests == []

    change(deployment, at)
    look = deployment.look()
    deployment.work_off(look)

    assert look.asked == [(deployment.key(5), deployment.key(5), [table])]
    assert deployment.ids(table, window) == ids
    manifest = deployment.manifest(window)
    assert (manifest.revision, manifest.mode) == (2, LATE)
    path = TABLES[table].path
    assert {f.table for f in manifest.files if f != first[f.table]} == {path}
    metadata = deployment.materialization(table, 5)
    assert (metadata["mode"], metadata["revision"]) == (LATE, 2)
    [read_at] = [file.read_at for file in manifest.files if file.table == path]
    assert datetime.fromisoformat(str(read_at)).timestamp() == pytest.approx(metadata["read_at"], abs=0.001)
    assert [deployment.look().requests for _ in range(2)] == [[], []]


@pytest.mark.defect("D2")
def test_an_updated_row_is_exported_as_updated(deployment: Deployment) -> None:
    at = deployment.hour(3).start
    deployment.write("observations", observation("o", at))
    deployment.export(deployment.key(3), deployment.key(3))

    deployment.write("observations", observation("o", at, output="done", total_cost=0.5))
    deployment.work_off(deployment.look())

    [row] = deployment.objects("observations", deployment.hour(3))
    assert (row["output"], row["total_cost"]) == ("done", 0.5)


class _LateWriter:
    """Inserts a row when the first bytes of an export arrive."""

    def __init__(self, deployment: Deployment, at: datetime) -> None:
        self._deployment, self._at = deployment, at
        self.wrote = False

    def bytes_read(self, count: int) -> None:
        if not self.wrote:
            self.wrote = True
            self._deployment.write("traces", trace("meanwhile", self._at))

    def table_exported(self, window: Window, exported: object) -> None:
        pass

    def window_finished(self, window: Window) -> None:
        pass


@pytest.mark.defect("D2")
def test_rows_that_arrive_during_the_export_follow(deployment: Deployment) -> None:
    deployment.tables = TRACES
    at = deployment.hour(2).start
    deployment.write("traces", trace("t", at))
    writer = _LateWriter(deployment, at)
    deployment.progress = writer
    assert deployment.export(deployment.key(2), deployment.key(2)).success
    assert writer.wrote
    assert deployment.ids("traces", deployment.hour(2)) == ["t"]

    deployment.work_off(deployment.look())

    assert deployment.ids("traces", deployment.hour(2)) == ["meanwhile", "t"]
    assert deployment.look().requests == []


def test_a_look_at_what_has_not_changed_reads_no_table(deployment: Deployment) -> None:
    _one_row_in_each_table(deployment, deployment.hour(2).start)
    deployment.export(deployment.key(2), deployment.key(1))
    deployment.environment = {LATE_SETTING + "MARGIN_S": "0"}
    del deployment.settings, deployment.source, deployment.defs
    looked = [deployment.look() for _ in range(2)]
    _pass_a_second(deployment)
    looked.append(deployment.look())
    seen = len(deployment.server.requests)

    looked.append(deployment.look())

    assert [look.requests for look in looked] == [[]] * 4
    assert looked[-1].skip_reason == "no window has changed"
    assert deployment.purposes(seen) == ["clock", "late-parts"]


def test_only_windows_within_the_look_back_are_exported_again(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.environment = {LATE_SETTING + "LOOKBACK_HOURS": "24"}
    deployment.export(deployment.key(27), deployment.key(22))

    for ago in (26, 23):
        deployment.write("traces", trace(f"late-{ago}", deployment.hour(ago).start))

    assert deployment.look().asked == [(deployment.key(23), deployment.key(23), ["traces"])]


def test_windows_that_were_never_exported_are_left_to_the_schedule(deployment: Deployment) -> None:
    deployment.tables = TRACES
    for ago in (3, 2, 1):
        deployment.write("traces", trace(f"t{ago}", deployment.hour(ago).start))
    deployment.export(deployment.key(2), deployment.key(2))

    assert deployment.look().requests == []


def test_a_backlog_is_worked_off_oldest_first_and_can_be_seen(
    deployment: Deployment, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.endpoint)
    deployment.tables = TRACES
    deployment.environment = {
        LATE_SETTING + "WINDOWS_PER_TICK": "3",
        "LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN": "2",
    }
    deployment.export(deployment.key(9), deployment.key(2))
    late = [9, 8, 7, 5, 3]
    deployment.write("traces", *[trace(f"late{ago}", deployment.hour(ago).start) for ago in late])

    first = deployment.look()
    deployment.work_off(first)
    second = deployment.look()
    deployment.work_off(second)

    assert [asked[:2] for asked in first.asked] == [
        (deployment.key(9), deployment.key(8)),
        (deployment.key(7), deployment.key(7)),
    ]
    assert [asked[:2] for asked in second.asked] == [(deployment.key(ago),) * 2 for ago in (5, 3)]
    assert deployment.look().requests == []
    for ago in late:
        assert deployment.ids("traces", deployment.hour(ago)) == [f"late{ago}"]
    gauges = [
        p for p in otlp.named("langfuse.blob_export.late_windows") if p.attributes["project"] == PROJECT
    ]
    assert {point.value for point in gauges} == {2, 0}
    histogram = otlp.named("langfuse.blob_export.job_duration_ms")
    assert LATE in {point.attributes["mode"] for point in histogram}
    deployment.telemetry.shutdown()  # while the receiver is there


def test_late_runs_come_after_the_newest_window_and_before_backfills(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))

    [request] = deployment.look().requests

    assert request.tags[MODE_TAG] == LATE
    assert 0 < int(request.tags["dagster/priority"]) < 10
    assert request.job_name == "export_hourly"


def test_a_retry_of_a_late_run_is_late(deployment: Deployment) -> None:
    deployment.tables = TRACES
    root = deployment.export(deployment.key(2), deployment.key(2), tags={MODE_TAG: LATE})
    job = deployment.defs.resolve_job_def("export_hourly")
    retry = deployment.instance.create_run_for_job(job, root_run_id=root.run_id, parent_run_id=root.run_id)

    assert run_mode(deployment.instance, retry) == LATE


def test_a_window_on_its_way_is_looked_at_again_when_its_run_has_ended(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    running = deployment.instance.create_run_for_job(
        deployment.defs.resolve_job_def("export_hourly"),
        tags={"dagster/partition": deployment.key(2)},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([asset_key(deployment.first, TABLES["traces"])]),
    )
    deployment.write("traces", trace("late", deployment.hour(2).start))

    # The run may have read before the row came, and it may have read it.
    assert [deployment.look().requests for _ in range(2)] == [[], []]
    deployment.instance.report_run_canceled(running)

    assert [asked[0] for asked in deployment.look().asked] == [deployment.key(2)]


def test_a_window_whose_last_attempt_failed_is_left_to_people(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))
    deployment.server.break_next(Fault("refuse", match="FROM `traces` AS t FINAL", code=60, times=9))
    assert not deployment.export(deployment.key(2), deployment.key(2)).success
    deployment.server.break_next()

    assert deployment.look().requests == []
    assert deployment.export(deployment.key(2), deployment.key(2)).success
    assert deployment.ids("traces", deployment.hour(2)) == ["late"]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["backing off", "stopped"])
def test_windows_of_a_project_that_fails_wait_until_it_works_again(
    deployment: Deployment, is_stopped: bool
) -> None:
    deployment.projects = [deployment.project(id, tables=TRACES) for id in (PROJECT, "works")]
    for project in deployment.projects:
        deployment.export(deployment.key(3), deployment.key(2), project=project)
    deployment.look()
    for ago in (3, 2):
        row = trace(f"late{ago}", deployment.hour(ago).start)
        deployment.write("traces", row, {**row, "project_id": "works"})
    health = HealthStore(deployment.instance)
    health.change(PROJECT, lambda _: Health(since=datetime.now(UTC), blocked=True, stopped=is_stopped))

    look = deployment.look()
    deployment.work_off(look, deployment.projects[1])
    again = deployment.look()
    health.change(PROJECT, lambda _: None)
    recovered = deployment.look()

    hours = (deployment.key(3), deployment.key(2), ["traces"])
    assert (look.asked, again.asked, recovered.asked) == ([hours], [], [hours])
    assert [r.tags["langfuse/project"] for r in (*look.requests, *recovered.requests)] == ["works", PROJECT]
    assert again.skip_reason is not None
    assert again.skip_reason.startswith("2 windows wait")


def test_what_waits_for_a_project_that_fails_may_grow_older_than_the_look_back(
    deployment: Deployment,
) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(4), deployment.key(2))
    deployment.look()
    deployment.write("traces", trace("late", deployment.hour(4).start))
    health = HealthStore(deployment.instance)
    health.change(PROJECT, lambda _: Health(since=datetime.now(UTC), blocked=True))
    assert deployment.look().requests == []
    health.change(PROJECT, lambda _: None)

    later = Deployment(
        deployment.server,
        deployment.home,
        deployment.instance,
        {LATE_SETTING + "LOOKBACK_HOURS": "2"},
        tables=TRACES,
        cursor=deployment.cursor,
    )

    assert [asked[0] for asked in later.look().asked] == [deployment.key(4)]


@pytest.mark.parametrize("minutes", [-8, 120])
def test_writers_whose_clocks_are_wrong_are_seen_once(deployment: Deployment, minutes: int) -> None:
    deployment.tables = TRACES
    deployment.write("traces", trace("t", deployment.hour(2).start))
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.look()
    wrong = datetime.now(UTC) + timedelta(minutes=minutes)

    deployment.write("traces", trace("late", deployment.hour(2).start), at=wrong)
    deployment.work_off(deployment.look())

    assert deployment.ids("traces", deployment.hour(2)) == ["late", "t"]
    assert [deployment.look().requests for _ in range(2)] == [[], []]


def _audit_is_due(deployment: Deployment) -> None:
    cursor = LateCursor.parse(deployment.cursor)
    assert cursor.audit.began is not None
    audit = cursor.audit.model_copy(update={"began": cursor.audit.began - timedelta(days=1)})
    deployment.cursor = cursor.model_copy(update={"audit": audit}).model_dump_json()


def test_the_audit_finds_deletions_that_leave_no_trace_and_clocks_that_are_far_off(
    deployment: Deployment,
) -> None:
    deployment.tables = TRACES
    deployment.write("traces", *[trace(f"t{ago}", deployment.hour(ago).start) for ago in (4, 3)])
    deployment.export(deployment.key(4), deployment.key(2))
    deployment.look()
    deployment.server.execute("DELETE FROM traces WHERE id = 't4'")
    hours_ago = datetime.now(UTC) - timedelta(hours=1)
    deployment.write("traces", trace("late", deployment.hour(2).start), at=hours_ago)
    assert deployment.look().requests == []

    _audit_is_due(deployment)
    look = deployment.look()
    deployment.work_off(look)

    assert [asked[0] for asked in look.asked] == [deployment.key(4), deployment.key(2)]
    assert deployment.ids("traces", deployment.hour(4)) == []
    assert deployment.ids("traces", deployment.hour(2)) == ["late"]
    _audit_is_due(deployment)
    assert deployment.look().requests == []


def test_a_sensor_that_starts_again_goes_on_where_it_was(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(1))
    deployment.look()
    deployment.write("traces", trace("late", deployment.hour(2).start))

    restarted = Deployment(
        deployment.server, deployment.home, deployment.instance, tables=TRACES, cursor=deployment.cursor
    )
    restarted.began = deployment.began
    restarted.work_off(restarted.look())
    assert restarted.ids("traces", restarted.hour(2)) == ["late"]

    for lost in (None, "{}", "a cursor of another version"):
        restarted.cursor = lost
        assert restarted.look().requests == []


def test_without_a_right_to_see_parts_late_rows_are_found_all_the_same(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))
    deployment.server.break_next(Fault("refuse", match="system.parts", code=497, status=403, times=-1))

    assert [asked[0] for asked in deployment.look().asked] == [deployment.key(2)]


def test_one_query_a_table_serves_every_project_and_frequency(deployment: Deployment) -> None:
    daily = deployment.project("daily", frequency=Frequency.DAILY)
    deployment.projects = [deployment.project(), deployment.project("it's"), daily]
    yesterday = Frequency.DAILY.window(Frequency.DAILY.floor(deployment.began) - timedelta(days=1))
    for project in deployment.projects:
        key = project.frequency.key(yesterday) if project is daily else deployment.key(30)
        assert deployment.export(key, key, project=project).success
    at = {"daily": yesterday.start, PROJECT: deployment.hour(30).start, "it's": deployment.hour(30).start}
    rows = [{**trace("late", moment), "project_id": project} for project, moment in at.items()]
    deployment.write("traces", *rows)
    paused = {**trace("late", yesterday.start), "project_id": "not exported"}
    deployment.write("traces", paused)
    seen = len(deployment.server.requests)

    look = deployment.look()

    assert deployment.purposes(seen).count("late-rows") == 4
    assert {(request.job_name, len(request.asset_selection or ())) for request in look.requests} == {
        ("export_hourly", 1),
        ("export_daily", 1),
    }
    assert len(look.requests) == 3


def test_a_look_reads_a_small_share_of_the_rows(deployment: Deployment) -> None:
    """600 000 rows of ten days in few parts: a look without news, with a late row, and after a merge."""
    deployment.environment = {LATE_SETTING + "MARGIN_S": "0"}
    columns = {"traces": ("", ""), "observations": (", type", ", 'SPAN'")}
    columns["events_full"] = (", type, trace_id", ", 'SPAN', 't'")
    for table, (names, values) in columns.items():
        spec = TABLES["events" if table == "events_full" else table]
        deployment.server.execute(
            f"INSERT INTO {table} (project_id, {spec.id_column}, {spec.time_column}, created_at, updated_at, "
            f"event_ts{names}) SELECT 'p' || toString(number % 5), toString(generateUUIDv4()), now64(3) - "
            f"toIntervalSecond(number * 86400 / 20000) AS t, t, t, t{values} FROM numbers(200000)"
        )
    _pass_a_second(deployment)
    deployment.look()

    quiet = _share_read(deployment)
    deployment.write("traces", trace("late", deployment.hour(50).start))
    one_late = _share_read(deployment)
    deployment.write("traces", trace("later", deployment.hour(50).start))
    deployment.server.execute("OPTIMIZE TABLE traces FINAL")
    merged = _share_read(deployment)

    assert quiet < 0.0001
    assert one_late < 0.0001
    assert merged < 0.7 / 3 * 1.1  # seven of ten days of one of three tables


def _pass_a_second(deployment: Deployment) -> None:
    """Parts are dated to the second: let the server's clock pass the one of the writes."""
    deployment.server.execute("SELECT sleepEachRow(1.1)")


def _share_read(deployment: Deployment) -> float:
    """Which share of all rows a look reads."""
    seen = _read_rows(deployment)
    deployment.look()
    return (_read_rows(deployment) - seen) / 600_000


def _read_rows(deployment: Deployment) -> int:
    deployment.server.execute("SYSTEM FLUSH LOGS query_log")
    [row] = deployment.server.rows(
        "SELECT toUInt32(sum(read_rows)) AS n FROM system.query_log WHERE type = 'QueryFinish' "
        'AND log_comment LIKE \'%"purpose": "late-%\''
    )
    return int(row["n"])


def test_after_a_day_of_trickling_rows_the_objects_equal_the_table(deployment: Deployment) -> None:
    deployment.tables = (TABLES["traces"], TABLES["scores"])
    oldest, newest, chance = 24, 1, random.Random(7)
    deployment.export(deployment.key(oldest), deployment.key(newest))

    for round in range(5):
        for _ in range(8):
            _change_something(deployment, chance, chance.randint(newest, oldest))
        if round == 3:
            deployment.server.execute("OPTIMIZE TABLE traces FINAL")
        deployment.work_off(deployment.look())
    assert deployment.look().requests == []

    for table, columns in (("traces", "name"), ("scores", "comment")):
        exported = [
            (row["id"], row[columns])
            for ago in range(newest, oldest + 1)
            for row in deployment.objects(table, deployment.hour(ago))
        ]
        stored = deployment.server.rows(f"SELECT id, {columns} FROM {table} FINAL")
        assert sorted(exported, key=str) == sorted(((r["id"], r[columns]) for r in stored), key=str)
        assert len(stored) > 5
    assert max(deployment.manifest(deployment.hour(ago)).revision for ago in range(1, 25)) > 2


def _change_something(deployment: Deployment, chance: random.Random, ago: int) -> None:
    """A late row, an update or a deletion in that hour, of a few ids, so that they meet."""
    id = f"{ago}-{chance.randint(0, 2)}"
    at = deployment.hour(ago).start + timedelta(minutes=10)
    deleted = chance.random() < 0.2
    text = str(chance.random())
    if chance.random() < 0.6:
        deployment.write("traces", trace(id, at, deleted=deleted, name=text))
    else:
        deployment.write("scores", score(id, at, deleted=deleted, comment=text))
