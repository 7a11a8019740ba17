"""Rows that change after their window's export reach the bucket, once, and at a small cost."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from pydantic import SecretStr

from langfuse_export.metadata import MANIFEST_ENTRY
from langfuse_export.naming import LATE, MODE_TAG, asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.runs import run_mode
from langfuse_export.tables import TABLES
from langfuse_export.windows import Window
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.postgres import Database
from langfuse_worker.settings.schedule import LATE_PREFIX
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import PROJECT, clock, event, insert, observation, score, trace
from tests.servers.langfuse_postgres import LangfusePostgres

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


@pytest.mark.defect("D2")
@pytest.mark.parametrize(("table", "change", "ids"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_after_the_export_reaches_the_bucket_once(
    deployment: Deployment, table: str, change: Change, ids: list[str]
) -> None:
    window = deployment.hour(5)
    at = window.start + timedelta(minutes=30)
    deployment.write_in_each_table(at)
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


def test_a_window_without_an_object_gets_one_with_its_first_row_and_loses_it_with_its_last(
    deployment: Deployment,
) -> None:
    deployment.tables = TRACES
    deployment.projects = [deployment.project(skip_empty=True)]
    window = deployment.hour(5)
    assert deployment.export(deployment.key(6), deployment.key(4)).success
    objects = deployment.home / "blobs" / PROJECT / "traces"
    assert not objects.exists()
    assert deployment.look().requests == []

    deployment.write("traces", trace("t", window.start))
    deployment.work_off(deployment.look())
    assert deployment.ids("traces", window) == ["t"]
    assert deployment.manifest(window).empty_tables == []

    deployment.write("traces", trace("t", window.start, deleted=True))
    look = deployment.look()
    deployment.work_off(look)
    assert look.asked == [(deployment.key(5), deployment.key(5), ["traces"])]
    assert not objects.exists()
    manifest = deployment.manifest(window)
    assert (manifest.revision, manifest.mode, manifest.files) == (3, LATE, [])
    assert [entry.table for entry in manifest.empty_tables] == ["traces"]
    assert deployment.look().requests == []


@pytest.mark.defect("D2")
def test_any_of_the_times_of_writing_betrays_a_late_row(deployment: Deployment) -> None:
    """`event_ts` may be the client's clock, which says when something happened and not when it arrived."""
    deployment.tables = TRACES
    columns = ("event_ts", "updated_at", "created_at")
    deployment.export(deployment.key(len(columns)), deployment.key(1))
    deployment.look()

    for ago, column in enumerate(columns, start=1):
        at = deployment.hour(ago).start
        stamps = {**dict.fromkeys(columns, clock(at)), column: clock(datetime.now(UTC))}
        insert(deployment.server.execute, "traces", [{**trace(column, at), **stamps}])
    deployment.work_off(deployment.look())

    found = [deployment.ids("traces", deployment.hour(ago)) for ago in range(1, len(columns) + 1)]
    assert found == [[column] for column in columns]


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


def test_only_windows_within_the_look_back_are_exported_again(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.environment = {LATE_PREFIX + "LOOKBACK_HOURS": "24"}
    deployment.export(deployment.key(27), deployment.key(21))

    for ago in (26, 22):  # an hour may end while the test works
        deployment.write("traces", trace(f"late-{ago}", deployment.hour(ago).start))

    assert deployment.look().asked == [(deployment.key(22), deployment.key(22), ["traces"])]


def test_windows_that_were_never_exported_are_left_to_the_schedule(deployment: Deployment) -> None:
    deployment.tables = TRACES
    for ago in (3, 2, 1):
        deployment.write("traces", trace(f"t{ago}", deployment.hour(ago).start))
    deployment.export(deployment.key(2), deployment.key(2))

    assert deployment.look().requests == []


def test_what_another_version_has_recorded_of_a_window_holds_up_no_other(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(3), deployment.key(2))
    asset = asset_key(deployment.first, TABLES["traces"])
    recorded = {MANIFEST_ENTRY: dg.MetadataValue.text('{"key": "of other fields"}')}
    deployment.instance.report_runless_asset_event(
        dg.AssetMaterialization(asset, partition=deployment.key(3), metadata=recorded)
    )
    deployment.write("traces", *[trace(f"late{ago}", deployment.hour(ago).start) for ago in (3, 2)])

    assert deployment.look().asked == [(deployment.key(2), deployment.key(2), ["traces"])]
    assert deployment.export(deployment.key(3), deployment.key(3)).success
    assert deployment.ids("traces", deployment.hour(3)) == ["late3"]


def test_a_retry_of_a_late_run_is_late(deployment: Deployment) -> None:
    deployment.tables = TRACES
    root = deployment.export(deployment.key(2), deployment.key(2), tags={MODE_TAG: LATE})
    job = deployment.defs.resolve_job_def("export_hourly")
    retry = deployment.instance.create_run_for_job(job, root_run_id=root.run_id, parent_run_id=root.run_id)

    assert run_mode(deployment.instance, retry) == LATE


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

    deployment.let_audit_be_due()
    look = deployment.look()
    deployment.work_off(look)

    assert [asked[0] for asked in look.asked] == [deployment.key(4), deployment.key(2)]
    assert deployment.ids("traces", deployment.hour(4)) == []
    assert deployment.ids("traces", deployment.hour(2)) == ["late"]
    deployment.let_audit_be_due()
    assert deployment.look().requests == []


def test_prices_that_change_are_no_late_rows(deployment: Deployment, langfuse: LangfusePostgres) -> None:
    deployment.tables = [TABLES[name].with_price_columns() for name in ("observations", "events")]
    deployment.postgres = Database(SecretStr(langfuse.url))
    langfuse.add_model("m", input="1")
    at = deployment.hour(5).start
    deployment.write("observations", observation("o", at, internal_model_id="m"))
    deployment.write("events_full", event("e", at, model_id="m"))
    assert deployment.export(deployment.key(6), deployment.key(4)).success
    assert deployment.look().requests == []

    langfuse.set_price("m", "input", "2")
    looks = [deployment.look()]
    deployment.let_audit_be_due()
    looks += [deployment.look() for _ in range(3)]

    assert [look.requests for look in looks] == [[]] * 4
    assert deployment.export(deployment.key(5), deployment.key(5)).success  # somebody wants the new ones
    for table in ("observations", "events"):
        assert [row["input_price"] for row in deployment.objects(table, deployment.hour(5))] == ["2"]
    assert deployment.manifest(deployment.hour(5)).revision == 2


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


def test_a_late_row_reaches_the_manifest_of_a_window_whose_project_has_got_another_table(
    deployment: Deployment,
) -> None:
    window = deployment.hour(5)
    deployment.write_in_each_table(window.start)
    deployment.projects = [deployment.project(tables=(TABLES["traces"], TABLES["scores"]))]
    assert deployment.export(deployment.key(6), deployment.key(4)).success
    deployment.look()
    _set_project(deployment, deployment.project())

    deployment.write("traces", trace("late", window.start))
    deployment.work_off(deployment.look())

    assert deployment.ids("traces", window) == ["late", "t"]
    manifest = deployment.manifest(window)
    assert {file.table: file.row_count for file in manifest.files} == {"scores": 1, "traces": 2}
    assert deployment.look().requests == []


def test_a_late_row_has_its_whole_window_follow_to_another_prefix(deployment: Deployment) -> None:
    window = deployment.hour(5)
    deployment.write_in_each_table(window.start)
    assert deployment.export(deployment.key(6), deployment.key(4)).success
    deployment.look()
    moved = StoreConfig(f"file://{deployment.home.absolute()}/blobs/moved/")
    _set_project(deployment, deployment.project(destination=moved))

    deployment.write("traces", trace("late", window.start))
    deployment.work_off(deployment.look())

    rows = {file.table: file.row_count for file in deployment.manifest(window).files}
    assert rows == {"scores": 1, "traces": 2, "observations": 1, "observations_v2": 1}
    assert deployment.look().requests == []


def _set_project(deployment: Deployment, project: ProjectExport) -> None:
    """Change the catalog and load the code location again."""
    deployment.projects = [project]
    del deployment.defs
