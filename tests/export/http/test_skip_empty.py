"""Windows of tables without rows that leave no object, and how a consumer sees that."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from langfuse_export.day_by_server import day_objects
from langfuse_export.day_read import day_files
from langfuse_export.errors import ConflictError, WindowError, is_transient
from langfuse_export.exported_table import ExportedTable
from langfuse_export.exporter import NoProgress
from langfuse_export.formats import Encoding
from langfuse_export.resources import ExportOptions
from langfuse_export.tables import OBSERVATIONS, SCORES, TABLES, TRACES
from langfuse_export.windows import Window
from langfuse_worker.blobstore import StoreAccessError
from tests.export.http.exporting import HOUR, JSONL, PARQUET, Deployment
from tests.export.http.heavy import fail_in_the_second_part, insert_observations
from tests.export.http.server_mode import BUCKET as ARCHIVE
from tests.export.http.server_mode import COLLECTION, to_bucket, writing_to_s3
from tests.rows import PROJECT, observation, score, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.s3 import S3Fault, S3Proxy, S3Server
from tests.waiting import wait_for

BUCKET = "skipping"
FOLDER = f"langfuse/{PROJECT}"
MANIFEST = f"{FOLDER}/manifests/2026-06-01T13-00-00.json"
TRACES_KEY = f"{FOLDER}/traces/2026-06-01T13-00-00.parquet"
DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.fixture
def skipping(deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy) -> Iterator[Deployment]:
    """Exports of every table to a bucket, through the proxy; what is empty leaves no object."""
    s3.create_bucket(BUCKET)
    destination = s3.store_config(BUCKET, "langfuse/", s3_proxy.url)
    with deployment.with_(destination=destination, skip_empty=True) as skipping:
        yield skipping


def delete_trace(deployment: Deployment) -> None:
    """The only trace of the hour is deleted."""
    deployment.insert("traces", trace("t", version=2, deleted=True))


def changes(s3_proxy: S3Proxy) -> list[tuple[str, str]]:
    """What was written and deleted in the bucket, in order; uploads count when they are complete."""
    return [
        (request.method, request.path.removeprefix(f"/{BUCKET}/"))
        for request in s3_proxy.requests
        if request.method in ("PUT", "POST", "DELETE") and not request.query.startswith(("uploads", "partN"))
    ]


def test_a_table_without_rows_has_no_object_and_the_manifest_says_so(
    skipping: Deployment, s3: S3Server
) -> None:
    skipping.insert("traces", trace("t"))

    result = skipping.export()

    assert s3.keys(BUCKET) == [MANIFEST, TRACES_KEY]
    manifest = json.loads(s3.read(BUCKET, MANIFEST))
    assert manifest["tables"] == ["scores", "traces", "observations", "observations_v2"]
    assert [file["key"] for file in manifest["files"]] == [TRACES_KEY]
    empty = {entry["table"]: entry for entry in manifest["emptyTables"]}
    assert list(empty) == ["scores", "observations", "observations_v2"]
    for entry in empty.values():
        assert (entry["rowCount"], entry["sizeBytes"], entry["hasObject"]) == (0, 0, False)
        assert entry["sha256"] is None
        assert entry["readAt"] < manifest["createdAt"]
    # Where an object will be once there are rows, and was if there have been some.
    assert empty["scores"]["key"] == f"{FOLDER}/scores/2026-06-01T13-00-00.parquet"
    assert "hasObject" not in manifest["files"][0]
    assert result.exported["scores"].uri is None


def test_without_the_option_every_table_has_an_object(deployment: Deployment) -> None:
    deployment.export()

    manifest = json.loads((deployment.blobs / deployment.project.manifest_key(HOUR)).read_text())
    assert len(manifest["files"]) == 4
    assert "emptyTables" not in manifest


def test_what_an_earlier_revision_wrote_goes_after_the_manifest_says_so(
    skipping: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    skipping.insert("traces", trace("t"))
    skipping.insert("scores", score("s"))
    skipping.export()
    delete_trace(skipping)
    s3_proxy.requests.clear()

    skipping.export(tables=[TRACES])

    assert changes(s3_proxy) == [("PUT", MANIFEST), ("DELETE", TRACES_KEY)]
    assert s3.keys(BUCKET) == [MANIFEST, f"{FOLDER}/scores/2026-06-01T13-00-00.parquet"]
    manifest = skipping.manifest()
    assert manifest.revision == 2
    assert [file.table for file in manifest.files] == ["scores"]
    assert "traces" in [entry.table for entry in manifest.empty_tables]


def test_rows_that_come_later_get_an_object(skipping: Deployment, s3: S3Server) -> None:
    skipping.export()
    assert s3.keys(BUCKET) == [MANIFEST]
    skipping.insert("traces", trace("t"))

    skipping.export(tables=[TRACES])

    assert skipping.ids("traces") == ["t"]
    manifest = skipping.manifest()
    assert [(file.table, file.row_count) for file in manifest.files] == [("traces", 1)]
    assert [entry.table for entry in manifest.empty_tables] == ["scores", "observations", "observations_v2"]


def test_objects_of_before_the_option_go_with_the_next_export(
    deployment: Deployment, skipping: Deployment, s3: S3Server
) -> None:
    skipping.with_(skip_empty=False).export()
    assert len(s3.keys(BUCKET)) == 5

    skipping.export()

    assert s3.keys(BUCKET) == [MANIFEST]


def test_an_object_that_may_not_be_deleted_fails_the_window_until_it_may(
    skipping: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    skipping.insert("traces", trace("t"))
    skipping.export()
    delete_trace(skipping)
    s3_proxy.faults = [S3Fault("DELETE", TRACES_KEY, 403, DENIED), S3Fault("POST", "delete", 403, DENIED)]

    with pytest.raises(StoreAccessError):
        skipping.export()
    assert skipping.manifest().files == []  # no manifest names what is about to go

    s3_proxy.faults = []
    skipping.export()
    assert s3.keys(BUCKET) == [MANIFEST]


def test_a_window_that_failed_before_it_had_a_manifest_leaves_nothing_behind(
    skipping: Deployment, s3: S3Server
) -> None:
    skipping.insert("traces", trace("t"))
    skipping.server.break_next(Fault("refuse", match="FROM `scores` AS t FINAL", code=202))
    with pytest.raises(WindowError):
        skipping.export()
    assert s3.keys(BUCKET) == [TRACES_KEY]
    delete_trace(skipping)

    skipping.export()

    assert s3.keys(BUCKET) == [MANIFEST]


def test_parts_of_a_window_that_has_become_empty_go(skipping: Deployment, s3: S3Server) -> None:
    insert_observations(skipping, count=4)
    fail_in_the_second_part(skipping)
    assert s3.keys(BUCKET) != []
    skipping.insert("observations", *(observation(f"o{n:03d}", version=2, deleted=True) for n in range(4)))

    skipping.export(tables=[OBSERVATIONS])

    assert s3.keys(BUCKET) == []


class MeanwhileAnotherRun(NoProgress):
    """A row arrives, and another run exports it, once the first run has found no traces."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._other = deployment.exporter()

    def table_exported(self, window: Window, exported: ExportedTable) -> None:
        """See `Progress`."""
        if exported.table == "traces" and exported.file.row_count == 0:
            self._deployment.insert("traces", trace("t2"))
            self._other.export(window, self._deployment.project.tables)


@pytest.mark.parametrize("had_rows", [False, True])
def test_the_object_of_another_run_is_never_removed(skipping: Deployment, had_rows: bool) -> None:
    if had_rows:
        skipping.insert("traces", trace("t"))
        skipping.export()
        delete_trace(skipping)
    exporter = skipping.exporter()
    exporter.progress = MeanwhileAnotherRun(skipping)

    with pytest.raises(ConflictError) as conflict:
        exporter.export(HOUR, skipping.project.tables)

    assert is_transient(conflict.value)
    assert skipping.ids("traces") == ["t2"]
    assert [file.row_count for file in skipping.manifest().files] == [1]


def test_a_run_whose_object_was_removed_at_the_same_time_exports_again(
    skipping: Deployment, s3_proxy: S3Proxy
) -> None:
    """One run deletes the old object just after another has replaced it."""
    skipping.insert("traces", trace("t"))
    skipping.export()
    delete_trace(skipping)
    gate = threading.Event()
    s3_proxy.faults = [
        S3Fault("DELETE", TRACES_KEY, until=gate, times=1),
        S3Fault("POST", "delete", until=gate, times=1),
    ]
    outcomes: list[Exception] = []

    def export() -> None:
        try:
            skipping.with_().export()
        except ConflictError as error:
            outcomes.append(error)

    emptying = threading.Thread(target=export)
    emptying.start()
    wait_for(
        lambda: any("delete" in f"{r.method} {r.query}".lower() for r in list(s3_proxy.requests)),
        lambda: "no object has been deleted",
    )
    skipping.insert("traces", trace("t2"))
    skipping.export()  # wrote its object, and its manifest, and found nothing wrong
    gate.set()
    emptying.join()

    assert len(outcomes) == 1  # so that this run is tried again
    skipping.export()
    assert skipping.ids("traces") == ["t2"]


@pytest.mark.parametrize("encoding", [PARQUET, JSONL], ids=lambda e: e.extension)
def test_windows_of_a_day_that_is_read_at_once_are_skipped_alike(
    skipping: Deployment, s3: S3Server, encoding: Encoding
) -> None:
    tables = (TRACES, SCORES)
    windows = [Window(HOUR.start + timedelta(hours=n), HOUR.end + timedelta(hours=n)) for n in range(3)]
    deployment = skipping.with_(encoding=encoding, tables=tables)
    for window in (windows[0], windows[2]):
        deployment.insert("traces", trace(f"t{window.start.hour}", window.start))
    deployment.export(windows[2])
    deployment.insert("traces", trace("t14", windows[2].start, version=2, deleted=True))
    exporter, usual = deployment.exporter(), ExportOptions.from_settings(deployment.server.settings())
    options = replace(usual, scratch=deployment.blobs.parent / "scratch")

    with day_files(exporter, [(table, windows) for table in tables], options) as files:
        for window in windows:
            exporter.export(window, tables, read_ahead=files[window])

    objects = [key for key in s3.keys(BUCKET) if "/manifests/" not in key]
    assert objects == [f"{FOLDER}/traces/2026-06-01T13-00-00.{deployment.encoding.extension}"]
    assert [len(deployment.manifest(window).files) for window in windows] == [1, 0, 0]
    assert [len(deployment.manifest(window).empty_tables) for window in windows] == [1, 2, 2]


def test_clickhouse_writes_nothing_for_a_window_without_rows(s3: S3Server, tmp_path: Path) -> None:
    s3.create_bucket(ARCHIVE)
    with writing_to_s3(tmp_path / "server", s3.url) as server:
        archiving = replace(to_bucket(server, s3), skip_empty=True)
        archiving.insert("traces", trace("t"))

        archiving.export()

        keys = s3.keys(ARCHIVE)
        inserts = [r for r in server.requests if r.sql.startswith("INSERT INTO FUNCTION")]
    assert keys == [MANIFEST, TRACES_KEY]
    assert len(inserts) == 1


def test_a_day_that_clickhouse_splits_has_no_objects_of_its_empty_windows(
    s3: S3Server, tmp_path: Path
) -> None:
    s3.create_bucket(ARCHIVE)
    windows = [Window(HOUR.start + timedelta(hours=n), HOUR.end + timedelta(hours=n)) for n in range(3)]
    tables = (TRACES, SCORES)
    with writing_to_s3(tmp_path / "server", s3.url) as server:
        archiving = replace(to_bucket(server, s3), skip_empty=True, tables=tables)
        archiving.insert("traces", trace("t"))
        exporter, options = archiving.exporter(), ExportOptions.from_settings(server.settings())

        with day_objects(exporter, [(table, windows) for table in tables], COLLECTION, options) as objects:
            for window in windows:
                exporter.export(window, tables, read_ahead=objects[window])

        empty = [len(archiving.manifest(window).empty_tables) for window in windows]
        inserts = [r for r in server.requests if r.sql.startswith("INSERT INTO FUNCTION")]
    assert [key for key in s3.keys(ARCHIVE) if "/manifests/" not in key] == [TRACES_KEY]
    assert empty == [1, 2, 2]
    assert len(inserts) == 1  # of the day; none of scores, of which the day has no rows


def test_tables_are_known_to_be_empty_from_the_manifest_of_before(skipping: Deployment) -> None:
    skipping.export()
    before = {entry.table: entry for entry in skipping.manifest().empty_tables}

    skipping.export(tables=[TABLES["scores"]])

    after = {entry.table: entry for entry in skipping.manifest().empty_tables}
    assert after.pop("scores") != before.pop("scores")
    assert after == before
