"""One window over HTTP: objects, manifest, contents."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from langfuse_export.errors import OccupiedError, WindowError, is_transient, reason_of
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.windows import Frequency, iso
from tests.export.http.exporting import CSV, ENCODINGS, HOUR, JSONL, PARQUET, ZSTD_PARQUET, Deployment
from tests.rows import NOON, PROJECT, event, observation, score, trace
from tests.servers.clickhouse import ClickHouseServer


@pytest.mark.defect("F9", "F12")
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
def test_every_table_becomes_an_object_and_the_manifest_names_them(
    deployment: Deployment, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    deployment.insert(
        "traces", trace("t1"), trace("t2", NOON + timedelta(minutes=59, seconds=59, milliseconds=999))
    )
    deployment.insert("observations", observation("o1"))
    deployment.insert("scores", score("s1"))
    deployment.insert("events_full", event("e1"), event("e2"), event("e3"))

    deployment.export()

    extension = encoding.extension
    assert deployment.files() == [
        f"{PROJECT}/manifests/2026-06-01T13-00-00.json",
        f"{PROJECT}/observations/2026-06-01T13-00-00.{extension}",
        f"{PROJECT}/observations_v2/2026-06-01T13-00-00.{extension}",
        f"{PROJECT}/scores/2026-06-01T13-00-00.{extension}",
        f"{PROJECT}/traces/2026-06-01T13-00-00.{extension}",
    ]
    assert deployment.ids("traces") == ["t1", "t2"]
    assert deployment.ids("events") == ["e1", "e2", "e3"]
    manifest = deployment.manifest()
    assert manifest.tables == ["scores", "traces", "observations", "observations_v2"]
    assert (manifest.window.min_timestamp, manifest.window.max_timestamp) == (iso(HOUR.start), iso(HOUR.end))
    assert {file.table: file.row_count for file in manifest.files} == {
        "scores": 1,
        "traces": 2,
        "observations": 1,
        "observations_v2": 3,
    }
    for file in manifest.files:
        data = deployment.store.read(file.key)
        assert file.size_bytes == len(data)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
    traces = manifest.files[1]
    assert (traces.min_time, traces.max_time) == ("2026-06-01T12:00:00.000Z", "2026-06-01T12:59:59.999Z")
    assert [column.name for column in traces.columns][:3] == ["id", "timestamp", "name"]


@pytest.mark.defect("F5")
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
def test_an_empty_window_gives_valid_empty_files(deployment: Deployment, encoding: Encoding) -> None:
    deployment.encoding = encoding

    deployment.export()

    for name in ("traces", "observations", "scores", "events"):
        assert deployment.rows(name) == []
    assert [file.row_count for file in deployment.manifest().files] == [0, 0, 0, 0]
    assert [file.min_time for file in deployment.manifest().files] == [None] * 4


def test_an_empty_csv_has_its_header_and_an_empty_parquet_file_its_schema(deployment: Deployment) -> None:
    csv = deployment.with_(encoding=Encoding(FileFormat.CSV))
    csv.export()
    key = csv.project.object_key(csv.project.table("scores"), HOUR)
    header = csv.store.read(key).decode().splitlines()[0]
    assert header.split(",")[:3] == ['"id"', '"timestamp"', '"project_id"']


def test_a_second_export_of_a_window_changes_its_content_and_no_key(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t1"))
    deployment.export()
    before = deployment.files()
    deployment.insert("traces", trace("late"))

    deployment.export()

    assert deployment.files() == before
    assert deployment.ids("traces") == ["late", "t1"]
    assert deployment.manifest().files[1].row_count == 2


@pytest.mark.defect("D1")
def test_a_shorter_window_never_overwrites_a_longer_one(deployment: Deployment) -> None:
    day = Frequency.DAILY.window(HOUR.start.replace(hour=0))
    last_hour = Frequency.HOURLY.window(HOUR.start.replace(hour=23))
    deployment.insert("traces", trace("noon"), trace("late", last_hour.start))
    deployment.with_(frequency=Frequency.DAILY).export(day)

    with pytest.raises(OccupiedError, match="belongs to the window 2026-06-01T00:00"):
        deployment.export(last_hour)

    assert deployment.ids("traces", last_hour) == ["late", "noon"]


def test_a_longer_window_may_replace_the_shorter_one_that_ends_with_it(deployment: Deployment) -> None:
    day = Frequency.DAILY.window(HOUR.start.replace(hour=0))
    last_hour = Frequency.HOURLY.window(HOUR.start.replace(hour=23))
    deployment.insert("traces", trace("noon"), trace("late", last_hour.start))
    deployment.export(last_hour)

    deployment.with_(frequency=Frequency.DAILY).export(day)

    assert deployment.ids("traces", day) == ["late", "noon"]
    assert deployment.manifest(day).window.min_timestamp == iso(day.start)


@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV], ids=lambda e: e.extension)
def test_the_time_zone_of_the_server_moves_no_window_and_no_time(encoding: Encoding, tmp_path: Path) -> None:
    moments = {"first": HOUR.start, "last": HOUR.end - timedelta(milliseconds=1), "next": HOUR.end}
    server = ClickHouseServer(tmp_path / "server", environment={"TZ": "America/New_York"})
    with server, Deployment(server, tmp_path / "blobs", encoding=encoding) as deployment:
        deployment.insert("traces", *[trace(id, at) for id, at in moments.items()])
        deployment.insert("events_full", *[event(id, at) for id, at in moments.items()])

        deployment.export()

        assert deployment.ids("traces") == deployment.ids("events") == ["first", "last"]
        [first] = [row for row in deployment.rows("traces") if row["id"] == "first"]
        assert str(first["timestamp"])[:19] == "2026-06-01 12:00:00"
        assert deployment.manifest().files[1].min_time == "2026-06-01T12:00:00.000Z"


@pytest.mark.parametrize(("encoding", "codec"), [(PARQUET, "SNAPPY"), (ZSTD_PARQUET, "ZSTD")])
def test_parquet_is_compressed_as_the_project_says(
    deployment: Deployment, encoding: Encoding, codec: str
) -> None:
    deployment.insert("traces", trace("t1", input="words " * 1000))

    with deployment.with_(encoding=encoding) as exporting:
        exporting.export()

        assert exporting.codecs("traces") == {codec}
        assert exporting.ids("traces") == ["t1"]


def test_rows_of_400_kb_pass_in_small_row_groups(deployment: Deployment) -> None:
    for part in range(10):
        rows = [observation(f"{part}-{n}", input=f"{n}" * 400_000) for n in range(10)]
        deployment.insert("observations", *rows)

    deployment.export()

    assert len(deployment.ids("observations")) == 100
    assert {len(row["input"]) for row in deployment.rows("observations")} == {400_000}


def test_a_window_that_has_not_ended_by_the_clock_of_clickhouse_is_refused(deployment: Deployment) -> None:
    [_, next_hour] = Frequency.HOURLY.windows(now := datetime.now(UTC), now + timedelta(hours=1))
    deployment.insert("traces", trace("early", next_hour.start))

    with pytest.raises(WindowError, match="by ClickHouse's clock") as failure:
        deployment.export(next_hour)

    assert (reason_of(failure.value), is_transient(failure.value)) == ("too_early", True)
    assert deployment.files() == []


@pytest.mark.parametrize("encoding", [PARQUET, JSONL], ids=lambda e: e.extension)
@pytest.mark.parametrize(("precision", "last"), [(3, ".999Z"), (6, ".999999Z"), (9, ".999999Z")])
def test_the_manifest_has_the_times_of_columns_of_any_precision(
    deployment: Deployment, encoding: Encoding, precision: int, last: str
) -> None:
    server = deployment.server
    column = f"timestamp DateTime64({precision}, 'UTC')"
    server.execute("RENAME TABLE traces TO traces_of_langfuse")
    try:
        server.execute("CREATE TABLE traces AS traces_of_langfuse")
        [row] = server.rows("SHOW CREATE TABLE traces")
        server.execute("DROP TABLE traces")
        server.execute(re.sub(r"`timestamp` DateTime64\(3[^)]*\)", column, row["statement"]))
        moments = {"first": HOUR.start, "last": HOUR.end - timedelta(microseconds=1)}
        for id, at in moments.items():
            deployment.insert("traces", trace(id, at) | {"timestamp": f"{at:%F %T.%f}"})
        deployment.with_(encoding=encoding).export()
        traces = deployment.manifest().files[1]
    finally:
        server.execute("DROP TABLE traces")
        server.execute("RENAME TABLE traces_of_langfuse TO traces")
    assert traces.min_time is not None
    assert traces.max_time is not None
    assert traces.min_time.startswith("2026-06-01T12:00:00.000")
    assert traces.max_time == "2026-06-01T12:59:59" + last
