"""A day that ClickHouse reads once and writes as one object a window."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from langfuse_export.day_by_server import day_objects
from langfuse_export.errors import WindowError, reason_of
from langfuse_export.exporter import WindowExporter
from langfuse_export.formats import Encoding
from langfuse_export.server_transfer import StagedWindow
from langfuse_export.tables import OBSERVATIONS, SCORES, TRACES, Hash, Table
from langfuse_export.windows import Window
from langfuse_worker.postgres import Database
from tests.export import comparing
from tests.export.http.exporting import HOUR, PARQUET, ZSTD_PARQUET, Deployment
from tests.export.http.server_mode import (
    BUCKET,
    COLLECTION,
    SECRET,
    to_bucket,
    writing_to_azure,
)
from tests.export.http.test_day_read import TABLES, WINDOWS, fill, options
from tests.export.http.test_limits import default_limits
from tests.export.http.test_prices import EXACT, PRICED, as_of, insert_calls, moments, prices
from tests.export.http.test_stopping import Worker
from tests.export.http.whole_day import HOURS, ROWS, assert_hours_read_the_day_once, export_whole_day
from tests.rows import PROJECT, observation, trace
from tests.servers.azure import AzureServer
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault
from tests.servers.langfuse_postgres import LangfusePostgres
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

BY_WINDOW = "PARTITION BY"
SHARED = ("row_count", "min_time", "max_time", "source_fingerprint", "columns", "format", "content_type")


@pytest.fixture
def archiving(writing_server: ClickHouseServer, way: S3Proxy, s3: S3Server) -> Iterator[Deployment]:
    """Exports in server mode of tables that are sorted by day, with rows in three of five windows."""
    s3.create_bucket(BUCKET)
    writing_server.empty()
    way.faults, way.requests = [], []
    with to_bucket(writing_server, s3).with_(tables=TABLES) as deployment:
        fill(deployment)
        yield deployment
    way.faults = []


@contextmanager
def day(
    deployment: Deployment,
    exporter: WindowExporter | None = None,
    tables: Sequence[Table] | None = None,
    windows: Sequence[Window] = WINDOWS,
) -> Iterator[Mapping[Window, Mapping[str, StagedWindow]]]:
    """The staged objects of the windows."""
    reads = [(table, windows) for table in tables or deployment.tables]
    exporter = exporter or deployment.exporter()
    with day_objects(exporter, reads, COLLECTION, options(deployment)) as staged:
        yield staged


def export_day(deployment: Deployment, windows: Sequence[Window] = WINDOWS) -> None:
    """Export all tables of the windows, each read once."""
    exporter = deployment.exporter()
    with day(deployment, exporter, windows=windows) as staged:
        for window in windows:
            assert set(staged[window]) == {table.name for table in deployment.tables}
            exporter.export(window, deployment.tables, read_ahead=staged[window])


def assert_equal_to_final(
    deployment: Deployment, windows: Sequence[Window], scratch: Path, tables: Sequence[Table] = TABLES
) -> None:
    """Every window's object has the rows that FINAL has, whatever their order."""
    for table in tables:
        for window in windows:
            time = f"t.{table.time_column}"
            within = f"{time} >= '{window.start:%F %T}' AND {time} < '{window.end:%F %T}'"
            where = f"project_id = '{PROJECT}' AND {within}"
            data = deployment.store.read(deployment.project.object_key(table, window))
            exported = comparing.exported_rows(deployment.server, table, PARQUET, data, scratch)
            stored = comparing.stored_rows(deployment.server, table, PARQUET, where)
            assert sorted(map(repr, exported)) == sorted(map(repr, stored)), (table.name, window)


def test_the_objects_are_those_that_each_windows_own_query_makes(
    archiving: Deployment, tmp_path: Path
) -> None:
    exporter = archiving.exporter()
    expected = {window: exporter.export(window, TABLES).exported for window in WINDOWS}
    keys, seen = archiving.store.keys(""), len(archiving.server.requests)

    with day(archiving, exporter) as staged:
        exported = {w: exporter.export(w, TABLES, read_ahead=staged[w]).exported for w in WINDOWS}

    sent = [request.sql for request in archiving.server.requests[seen:]]
    assert archiving.store.keys("") == keys
    assert_equal_to_final(archiving, WINDOWS, tmp_path)
    for window in WINDOWS:
        assert archiving.manifest(window).revision == 2
        for table in TABLES:
            old, new = expected[window][table.name].file, exported[window][table.name].file
            assert {name: getattr(new, name) for name in SHARED} == {n: getattr(old, n) for n in SHARED}
            assert new.read_at > old.read_at
    assert [exported[w]["traces"].file.row_count for w in WINDOWS] == [8, 8, 0, 8, 0]
    # One query for the windows with rows; the others take one that reads nothing.
    assert len({exported[w]["traces"].file.query_id for w in WINDOWS}) == 3
    assert [BY_WINDOW in text for text in sent].count(True) == len(TABLES)
    nothing = [text for text in sent if text.endswith("LIMIT 0")]
    assert len(nothing) == len(TABLES) * 2
    assert all("FINAL" not in text for text in nothing)
    with_payload = [text for text in sent if " AS `project_id`" in text]
    assert len(with_payload) == len(TABLES) * 3
    assert all(text.startswith("INSERT INTO FUNCTION s3(") for text in with_payload)


def test_clickhouse_reads_a_day_about_once_for_24_windows(archiving: Deployment, tmp_path: Path) -> None:
    archiving.server.empty()
    exporter = export_whole_day(archiving, "a day by the server")

    with day(archiving, exporter, [OBSERVATIONS], HOURS) as staged:
        exported = [exporter.export(hour, [OBSERVATIONS], read_ahead=staged[hour]) for hour in HOURS]

    assert sum(result.exported["observations"].file.row_count for result in exported) == ROWS
    assert_equal_to_final(archiving, HOURS, tmp_path, [OBSERVATIONS])
    assert_hours_read_the_day_once(archiving, "a day by the server")


def test_every_window_of_a_day_in_azure(azure: AzureServer, tmp_path: Path) -> None:
    azure.create_container(BUCKET)
    with writing_to_azure(tmp_path / "data", azure) as server:
        destination = azure.store_config(BUCKET, "langfuse/")
        azure_day = Deployment(
            server, tmp_path / "blobs", destination=destination, named_collection=COLLECTION, tables=TABLES
        )
        with azure_day as deployment:
            fill(deployment)

            export_day(deployment)

            assert_equal_to_final(deployment, WINDOWS, tmp_path)
            assert [len(deployment.ids("traces", window)) for window in WINDOWS] == [8, 8, 0, 8, 0]
            assert not [key for key in azure.keys(BUCKET) if "_incomplete" in key]


def test_the_query_carries_limits_choices_and_masks_and_no_secret(archiving: Deployment) -> None:
    key = b"correct horse battery staple"
    table = TRACES.only(["name", "user_id"]).filtered({"user_id": ["ada"]}).masked({"user_id": Hash(key)})
    archiving.insert("traces", trace("a", user_id="ada"), trace("b", user_id="bob"))
    seen = len(archiving.server.exports_in_query_log())

    with archiving.with_(tables=[table]) as chosen:
        export_day(chosen)

    [row] = chosen.rows("traces")
    assert set(row) == {"id", "project_id", "timestamp", "name", "user_id"}
    assert (row["id"], len(row["user_id"])) == ("a", 64)
    logged = archiving.server.exports_in_query_log()[seen:]
    [writing] = [query for query in logged if BY_WINDOW in query["query"]]
    usual = default_limits(archiving.server)
    assert {name: writing["settings"].get(name) for name in usual} == usual
    comment = json.loads(writing["comment"])
    assert (comment["purpose"], comment["project"], comment["table"]) == ("export-day", PROJECT, "traces")
    assert comment["window"] == str(Window(WINDOWS[0].start, WINDOWS[-1].end))
    for text in map(str, logged):
        assert SECRET not in text
        assert key.hex() not in text
    assert not [request for request in archiving.server.requests if SECRET in str(request)]


def test_prices_are_in_the_objects_that_clickhouse_writes(
    archiving: Deployment, langfuse: LangfusePostgres, tmp_path: Path
) -> None:
    archiving.server.empty()
    langfuse.add_model("m", input=EXACT)
    table = PRICED[0]
    insert_calls(archiving, a="m", b=None)
    archiving.insert("observations", observation("c", WINDOWS[1].start, internal_model_id="m"))
    database = Database(SecretStr(langfuse.url))
    with archiving.with_(tables=[table], postgres=database) as priced:
        priced.export()
        found, moment = prices(priced, table), as_of(priced)
        assert found == {"a": [EXACT[:-1], None, None], "b": [None] * 3}
        assert moments(priced.rows("observations")) == {moment}
        langfuse.set_price("m", "input", "2")

        export_day(priced)

        assert prices(priced, table) == {"a": ["2", None, None], "b": [None] * 3}
        assert prices(priced, table, WINDOWS[1]) == {"c": ["2", None, None]}
        for window in WINDOWS[:2]:
            assert moments(priced.rows("observations", window)) == {as_of(priced, window=window)}
        assert len({as_of(priced, window=window) for window in WINDOWS}) == 1
        assert str(as_of(priced)) > str(moment)


@pytest.mark.parametrize("code", [241, 159], ids=["memory", "time"])
def test_a_day_that_is_too_heavy_is_left_to_the_windows_own_queries(archiving: Deployment, code: int) -> None:
    archiving.server.break_next(Fault("refuse", match=BY_WINDOW, code=code))

    with capture_logs() as logs, day(archiving, tables=[SCORES]) as staged:
        assert not staged

    assert [(line["event"], line["table"]) for line in logs] == [("blob_export_day_read_failed", "scores")]
    assert archiving.store.keys("") == []


def test_a_bucket_that_takes_some_of_the_objects_has_none(
    archiving: Deployment, way: S3Proxy, s3: S3Server
) -> None:
    folder = archiving.project.staging_folder(TRACES, WINDOWS[3])
    way.faults = [S3Fault("PUT", folder, 403, "<Error><Code>AccessDenied</Code></Error>")]

    with capture_logs() as logs, day(archiving, tables=[TRACES]) as staged:
        assert not staged
        assert s3.keys(BUCKET) == []

    assert "named collection langfuse_archive" in logs[0]["error"]


def test_an_object_that_is_not_its_windows_is_never_put_in_place(archiving: Deployment, s3: S3Server) -> None:
    exporter = archiving.exporter()

    with day(archiving, exporter, tables=[TRACES]) as staged:
        first, second = (staged[window]["traces"].key for window in WINDOWS[:2])
        # As many rows as the other window, so that only a part of it can be told apart.
        s3.client.put_object(
            Bucket=BUCKET, Key=f"langfuse/{first}", Body=s3.read(BUCKET, f"langfuse/{second}")[:-50]
        )
        with pytest.raises(WindowError) as failure:
            exporter.export(WINDOWS[0], [TRACES], read_ahead=staged[WINDOWS[0]])
        exporter.export(WINDOWS[1], [TRACES], read_ahead=staged[WINDOWS[1]])

    assert reason_of(failure.value) == "verification"
    assert archiving.store.keys("") == [archiving.project.object_key(TRACES, WINDOWS[1])]


def test_what_nobody_puts_in_place_is_deleted(archiving: Deployment) -> None:
    exporter = archiving.exporter()

    with day(archiving, exporter) as staged:
        exporter.export(HOUR, TABLES, read_ahead=staged[HOUR])
        assert archiving.store.keys("_incomplete") != []

    assert archiving.store.keys("_incomplete") == []
    assert len(archiving.ids("traces")) == 8


def test_a_connection_that_is_cut_has_the_query_killed(archiving: Deployment) -> None:
    archiving.server.break_next(Fault("cut", match=BY_WINDOW))
    seen = len(archiving.server.requests)

    with day(archiving, tables=[TRACES]) as staged:
        assert not staged

    requests = archiving.server.requests[seen:]
    [query_id] = [r.parameters["query_id"] for r in requests if BY_WINDOW in r.sql]
    assert [r.parameters["param_id"] for r in requests if r.sql.startswith("KILL QUERY")] == [query_id]
    assert archiving.store.keys("") == []


def test_a_worker_that_is_asked_to_stop_kills_the_query_that_writes_a_day(
    archiving: Deployment, way: S3Proxy, s3: S3Server, tmp_path: Path
) -> None:
    gate = threading.Event()
    way.faults = [S3Fault("PUT", "_incomplete", until=gate)]
    seen = len(archiving.server.requests)
    worker = Worker(archiving, tmp_path)
    worker.write_catalog(transfer="server", named_collection=COLLECTION)
    process = worker.start(until="2026-06-01T15:00")
    way.wait_for("PUT", "_incomplete")

    process.send_signal(signal.SIGTERM)

    archiving.server.wait_for_running_exports(0)
    gate.set()
    _, logs = process.communicate(timeout=60)
    assert process.returncode not in (0, None), logs
    [line] = [line for line in logs.splitlines() if "blob_export_day_read_failed" in line]
    assert '"reason": "cancelled"' in line
    requests = archiving.server.requests[seen:]
    [query_id] = [r.parameters["query_id"] for r in requests if r.sql.startswith("INSERT INTO FUNCTION")]
    assert query_id in {r.parameters["param_id"] for r in requests if r.sql.startswith("KILL QUERY")}
    assert [key for key in s3.keys(BUCKET) if "_incomplete" not in key] == []


@pytest.mark.parametrize(("encoding", "codec"), [(PARQUET, "SNAPPY"), (ZSTD_PARQUET, "ZSTD")])
def test_parquet_is_compressed_as_the_project_says(
    archiving: Deployment, encoding: Encoding, codec: str
) -> None:
    archiving = archiving.with_(encoding=encoding)

    export_day(archiving)

    assert archiving.codecs("traces") == {codec}
