"""A day that is read once for all of its windows."""

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from langfuse_export.day_read import day_files
from langfuse_export.formats import Encoding
from langfuse_export.resources import ExportOptions
from langfuse_export.tables import DATASET_RUN_ITEMS, EVENTS, OBSERVATIONS, SCORES, TRACES, Table
from langfuse_export.windows import Window
from tests.export.http.exporting import CSV, HOUR, JSON, JSONL, PARQUET, ZSTD_PARQUET, Deployment
from tests.export.http.heavy import KEY, fail_in_the_second_part, insert_observations
from tests.export.http.whole_day import HOURS, ROWS, assert_hours_read_the_day_once, export_whole_day
from tests.rows import event, observation, run_item, score, trace
from tests.servers.clickhouse_http import Fault

TABLES = (TRACES, OBSERVATIONS, SCORES, EVENTS, DATASET_RUN_ITEMS)
WINDOWS = [Window(HOUR.start + timedelta(hours=n), HOUR.end + timedelta(hours=n)) for n in range(5)]
EVENT = {
    "metadata_names": ["a", "b"],
    "metadata_values": ["1"],
    "cost_details": {"total": "0.000000000001"},
    "usage_details": {"input": 2**63},
    "tool_calls": ["{}"],
    "tags": ["x"],
    "prompt_version": 3,
    "bookmarked": True,
}
ODD = 'a "quoted", \\u0041 line\nbreak, }\n{ and \x01'


def fill(deployment: Deployment) -> None:
    """Rows of the first four windows, of which the third has none; newer versions, and a deletion."""
    times = [HOUR.start + timedelta(minutes=7 * n) for n in range(34) if not 17 <= n < 26]
    deployment.insert("traces", *(trace(f"t{n}", at, input=ODD) for n, at in enumerate(times)))
    deployment.insert("observations", *(observation(f"o{n}", at, output=ODD) for n, at in enumerate(times)))
    deployment.insert("scores", *(score(f"s{n}", at, comment=ODD) for n, at in enumerate(times)))
    deployment.insert("events_full", *(event(f"e{n}", at, input=ODD, **EVENT) for n, at in enumerate(times)))
    items = (run_item(f"i{n}", at, dataset_item_input=ODD) for n, at in enumerate(times))
    deployment.insert("dataset_run_items_rmt", *items)
    deployment.insert("traces", trace("t1", times[1], version=2, name="newer"))
    deployment.insert("traces", trace("t2", times[2], version=2, deleted=True))


def options(deployment: Deployment, buffer_bytes: int = 64 << 20) -> ExportOptions:
    """Options that hold so many bytes in memory."""
    usual = ExportOptions.from_settings(deployment.server.settings())
    return replace(usual, scratch=deployment.blobs.parent / "scratch", catchup_buffer_bytes=buffer_bytes)


def parquet_schema(deployment: Deployment, table: Table, window: Window) -> pa.Schema:
    """Types and nullability of the object's columns, as a reader sees them."""
    key = deployment.project.object_key(table, window)
    return pq.read_schema(io.BytesIO(deployment.store.read(key)))


def sorted_rows(deployment: Deployment, table: str, window: Window) -> list[dict[str, object]]:
    """The rows of the object, by id."""
    return sorted(deployment.rows(table, window), key=lambda row: row["id"])


@pytest.mark.parametrize("buffer_bytes", [1, 64 << 20])
@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV, JSON], ids=lambda encoding: encoding.extension)
def test_the_objects_are_those_that_each_windows_own_query_makes(
    deployment: Deployment, encoding: Encoding, buffer_bytes: int
) -> None:
    deployment = deployment.with_(encoding=encoding, tables=TABLES)
    fill(deployment)
    exporter = deployment.exporter()
    expected = {window: exporter.export(window, TABLES).exported for window in WINDOWS}
    rows = {(w, t.name): sorted_rows(deployment, t.name, w) for w in WINDOWS for t in TABLES}
    schemas = [parquet_schema(deployment, t, HOUR) for t in TABLES] if encoding is PARQUET else []

    reads = [(table, WINDOWS) for table in TABLES]
    with day_files(exporter, reads, options(deployment, buffer_bytes)) as files:
        exported = {w: exporter.export(w, TABLES, read_ahead=files[w]).exported for w in WINDOWS}

    for window in WINDOWS:
        for table in TABLES:
            assert sorted_rows(deployment, table.name, window) == rows[window, table.name]
            old, new = expected[window][table.name].file, exported[window][table.name].file
            for name in ("row_count", "min_time", "max_time", "source_fingerprint", "columns", "format"):
                assert getattr(new, name) == getattr(old, name), name
            assert new.read_at > old.read_at
    assert [len(rows[window, "traces"]) for window in WINDOWS] == [8, 8, 0, 8, 0]
    if encoding is PARQUET:
        assert [parquet_schema(deployment, table, HOUR) for table in TABLES] == schemas
    assert not list((deployment.blobs.parent / "scratch").iterdir())


def test_parts_of_a_window_that_was_too_heavy_go_once_it_is_read_with_its_day(deployment: Deployment) -> None:
    insert_observations(deployment)
    fail_in_the_second_part(deployment)
    exporter = deployment.exporter()

    with day_files(exporter, [(OBSERVATIONS, WINDOWS)], options(deployment)) as files:
        exporter.export(HOUR, [OBSERVATIONS], read_ahead=files[HOUR])

    assert len(deployment.ids("observations")) == 20
    assert deployment.files() == [KEY]


def test_a_day_that_cannot_be_read_at_once_is_left_to_the_windows_own_queries(deployment: Deployment) -> None:
    fill(deployment)
    deployment.server.break_next(Fault("exception", match="__window", after_bytes=100, times=-1))

    reads = [(TRACES, WINDOWS)]
    with capture_logs() as logs, day_files(deployment.exporter(), reads, options(deployment)) as files:
        assert not files

    assert [line["event"] for line in logs] == ["blob_export_day_read_failed"]
    assert logs[0]["table"] == "traces"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV, JSON], ids=lambda encoding: encoding.extension)
@pytest.mark.parametrize("row_bytes", [3_000, 30_000], ids=["in Python's buffer", "beyond it"])
def test_a_day_that_the_disk_has_no_room_for_is_left_to_the_windows_own_queries(
    deployment: Deployment, encoding: Encoding, row_bytes: int
) -> None:
    deployment = deployment.with_(encoding=encoding)
    for window in WINDOWS:
        deployment.insert("traces", trace(f"t{window.start:%H}", window.start, input="x" * row_bytes))

    with (
        capture_logs() as logs,
        full_disk(),
        day_files(deployment.exporter(), [(TRACES, WINDOWS)], options(deployment)) as files,
    ):
        assert not files

    assert [line["event"] for line in logs] == ["blob_export_day_read_failed"]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 2000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_stream_that_ends_early_makes_no_object(deployment: Deployment) -> None:
    fill(deployment)
    exporter = deployment.exporter()
    # The end of the body lies between two batches: to Arrow the stream looks whole.
    deployment.server.break_next(Fault("truncate", match="__window", after_bytes=0))

    with day_files(exporter, [(TRACES, WINDOWS)], options(deployment)) as files:
        if files:
            exporter.export(HOUR, [TRACES], read_ahead=files[HOUR])

    assert not [name for name in deployment.files() if "/traces/" in name]


def test_clickhouse_reads_a_day_about_once_for_24_windows(deployment: Deployment) -> None:
    exporter = export_whole_day(deployment, "a day at once")

    with day_files(exporter, [(OBSERVATIONS, HOURS)], options(deployment)) as files:
        exported = [exporter.export(hour, [OBSERVATIONS], read_ahead=files[hour]) for hour in HOURS]

    assert sum(result.exported["observations"].file.row_count for result in exported) == ROWS
    assert_hours_read_the_day_once(deployment, "a day at once")


@pytest.mark.parametrize(("encoding", "codec"), [(PARQUET, "SNAPPY"), (ZSTD_PARQUET, "ZSTD")])
def test_parquet_is_compressed_as_the_project_says(
    deployment: Deployment, encoding: Encoding, codec: str
) -> None:
    fill(deployment)
    with deployment.with_(encoding=encoding, tables=TABLES) as exporting:
        exporter = exporting.exporter()

        with day_files(exporter, [(TRACES, WINDOWS)], options(exporting)) as files:
            exporter.export(HOUR, [TRACES], read_ahead=files[HOUR])

        assert exporting.codecs("traces") == {codec}
