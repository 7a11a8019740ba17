"""Langfuse 4.16's defects D1 to D11 by name; D12 to D16 concern runs: tests/export/dagster."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from langfuse_export import estimate
from langfuse_export.catalog.discovery import EARLIEST, query_projects
from langfuse_export.errors import WindowError
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.tables import TABLES
from langfuse_export.windows import Window
from langfuse_worker.blobstore.parts import LIMITS, PART_BYTES, Limits
from tests.export.http.exporting import CSV, ENCODINGS, HOUR, JSON, JSONL, PARQUET, Deployment
from tests.rows import NOON, PROJECT, event, observation, score, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.s3 import S3Proxy, S3Server

MILLISECOND = timedelta(milliseconds=1)
NEXT = Window(HOUR.end, HOUR.end + timedelta(hours=1))


@pytest.mark.defect("D1", "F8")
def test_d1_windows_that_follow_each_other_have_objects_and_manifests_of_their_own(
    deployment: Deployment,
) -> None:
    deployment.insert("traces", trace("first"), trace("second", HOUR.end))

    deployment.export(HOUR)
    deployment.export(NEXT)

    assert deployment.ids("traces", HOUR) == ["first"]
    assert deployment.ids("traces", NEXT) == ["second"]
    assert len(deployment.files()) == 10
    assert deployment.manifest(HOUR).window != deployment.manifest(NEXT).window


@pytest.mark.defect("D2")
def test_d2_a_row_that_arrives_late_is_in_the_object_once_its_window_is_exported_again(
    deployment: Deployment,
) -> None:
    deployment.insert("observations", observation("early"))
    deployment.export()
    deployment.insert("observations", observation("late"), observation("early", version=2, output="done"))

    deployment.export()

    rows = {row["id"]: row["output"] for row in deployment.rows("observations")}
    assert rows == {"early": "done", "late": None}


@pytest.mark.defect("D3")
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
def test_d3_the_newest_version_of_an_event_wins_whatever_part_holds_it(
    deployment: Deployment, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    for version in (2, 3, 1):
        rows = [event(f"e{n}", version=version, output=f"version {version}") for n in range(20)]
        deployment.insert("events_full", *rows)

    deployment.export()

    assert [row["output"] for row in deployment.rows("events")] == ["version 3"] * 20


@pytest.mark.defect("D4", "F6")
@pytest.mark.parametrize(
    ("table", "make"),
    [("traces", trace), ("observations", observation), ("scores", score), ("events", event)],
)
def test_d4_a_deleted_row_is_absent_and_stays_so(deployment: Deployment, table: str, make: type) -> None:
    source = TABLES[table].source
    deployment.insert(source, *[make(f"kept{n}") for n in range(3)], *[make(f"gone{n}") for n in range(20)])
    deployment.insert(source, *[make(f"gone{n}", version=2, deleted=True) for n in range(20)])

    deployment.export()

    assert deployment.ids(table) == ["kept0", "kept1", "kept2"]


@pytest.mark.defect("D4", "F6")
def test_d4_a_version_that_moved_within_its_day_does_not_bring_the_old_one_back(
    deployment: Deployment,
) -> None:
    deployment.insert("traces", trace("moved"), trace("deleted"))
    deployment.insert("traces", trace("moved", NOON + timedelta(hours=5), version=2))
    deployment.insert("traces", trace("deleted", NOON - timedelta(hours=5), version=2, deleted=True))

    deployment.export()

    assert deployment.ids("traces") == []


@pytest.mark.defect("D5")
def test_d5_metadata_of_events_is_whole_without_the_io_group(deployment: Deployment) -> None:
    long = "x" * 5000
    deployment.insert("events_full", event("e", metadata_names=["k"], metadata_values=[long]))
    without_io = TABLES["events"].only(groups=["core", "metadata"])

    deployment.with_(tables=[without_io]).export()

    [row] = deployment.rows("events")
    assert row["metadata"] == {"k": long}
    assert "input" not in row


ESCAPES = '{"msg":"say \\u0022hi\\u0022", "doc":"\\\\u0041 \\u0000"}'


@pytest.mark.defect("D6")
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
def test_d6_unicode_escapes_in_a_string_stay_as_they_are_stored(
    deployment: Deployment, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    deployment.insert("traces", trace("t", input=ESCAPES))

    deployment.export()

    [row] = deployment.rows("traces")
    assert row["input"] == ESCAPES
    assert json.loads(row["input"])["msg"] == 'say "hi"'


@pytest.mark.defect("D7", "F8")
@pytest.mark.parametrize(
    ("table", "make"),
    [("traces", trace), ("observations", observation), ("scores", score), ("events", event)],
)
def test_d7_a_row_on_the_boundary_is_in_exactly_one_window(
    deployment: Deployment, table: str, make: type
) -> None:
    moments = {
        "start": HOUR.start,
        "last": HOUR.end - MILLISECOND,
        "boundary": HOUR.end,
        "end": NEXT.end - MILLISECOND,
        "after": NEXT.end,
        "before": HOUR.start - MILLISECOND,
    }
    deployment.insert(TABLES[table].source, *[make(id, at) for id, at in moments.items()])

    deployment.export(HOUR)
    deployment.export(NEXT)

    assert deployment.ids(table, HOUR) == ["last", "start"]
    assert deployment.ids(table, NEXT) == ["boundary", "end"]


@pytest.mark.defect("D7")
def test_d7_an_event_in_the_last_microsecond_is_in_its_window(deployment: Deployment) -> None:
    deployment.insert("events_full", event("e", HOUR.end - timedelta(microseconds=1)))

    deployment.export(HOUR)
    deployment.export(NEXT)

    assert (deployment.ids("events", HOUR), deployment.ids("events", NEXT)) == (["e"], [])


@pytest.mark.defect("D8")
def test_d8_history_starts_with_the_first_row_of_any_table_and_never_in_1970(deployment: Deployment) -> None:
    march = datetime(2026, 3, 3, 3, tzinfo=UTC)
    deployment.insert("events_full", event("e", march))
    deployment.insert("scores", score("s", NOON), score("broken", datetime(1970, 1, 1, 1, tzinfo=UTC)))
    tables = list(TABLES.values())

    assert query_projects(deployment.source, tables) == {PROJECT: EARLIEST}
    deployment.server.execute("TRUNCATE TABLE scores")
    assert query_projects(deployment.source, tables) == {PROJECT: march}
    deployment.server.execute("TRUNCATE TABLE events_full")
    assert query_projects(deployment.source, tables) == {}


@pytest.mark.defect("D9")
def test_d9_an_object_beyond_the_limit_of_parts_fails_and_is_not_committed_truncated(
    deployment: Deployment, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.create_bucket("parts")
    monkeypatch.setitem(LIMITS, "s3", Limits(parts=1, object_bytes=1 << 40))
    small = replace(s3.store_config("parts"), part_bytes=10_000)
    deployment.insert("traces", *[trace(f"t{n}", input=str(hash(n)) * 10) for n in range(1000)])

    with pytest.raises(WindowError, match="part_bytes"):
        deployment.with_(destination=small).export()

    assert [key for key in s3.keys("parts") if "traces" in key or "manifests" in key] == []
    assert s3.open_uploads("parts") == {}


@pytest.mark.defect("D9")
def test_d9_parts_grow_with_what_the_window_is_estimated_to_hold(
    deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four parts of 5 MiB would not do for 3000 rows of 10 kB."""
    s3.create_bucket("parts")
    monkeypatch.setitem(LIMITS, "s3", Limits(parts=4, object_bytes=1 << 40))
    monkeypatch.setattr(estimate, "FROM_ROWS", 1000)
    values = f"SELECT toString(number), '{PROJECT}', '2026-06-01 12:30:00', randomPrintableASCII(10000)"
    deployment.server.execute(
        f"INSERT INTO traces (id, project_id, timestamp, input) {values} FROM numbers(3000)"
    )
    small = replace(s3.store_config("parts", endpoint=s3_proxy.url), part_bytes=5 << 20)

    result = deployment.with_(destination=small, encoding=JSONL).export(tables=[TABLES["traces"]])

    sizes = [
        int(r.headers["content-length"])
        for r in s3_proxy.requests
        if r.method == "PUT" and "partNumber" in r.query
    ]
    assert sum(sizes) == result.exported["traces"].file.size_bytes > 30e6
    assert len(sizes) <= 4


@pytest.mark.defect("D9")
def test_d9_the_default_part_size_allows_more_than_300_gb() -> None:
    assert PART_BYTES * LIMITS["s3"].parts > 300e9


@pytest.mark.defect("D10")
@pytest.mark.parametrize("tagged", [True, False], ids=["25.11", "older"])
@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV, JSON], ids=lambda e: e.extension)
def test_d10_an_exception_after_http_200_never_becomes_an_object(
    deployment: Deployment, encoding: Encoding, tagged: bool
) -> None:
    deployment.encoding = encoding
    deployment.insert("traces", *[trace(f"t{n}", input=str(hash(n)) * 10) for n in range(1000)])
    deployment.server.break_next(Fault("exception", match="t.input", after_bytes=70_000, tagged=tagged))

    with pytest.raises(WindowError):
        deployment.export(tables=[TABLES["traces"]])

    assert deployment.files() == []


@pytest.mark.defect("D10")
@pytest.mark.parametrize("encoding", [JSONL, CSV], ids=lambda e: e.extension)
def test_d10_a_text_file_that_ends_between_two_rows_is_no_whole_file(
    deployment: Deployment, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    deployment.insert("traces", *[trace(f"t{n}") for n in range(10)])
    deployment.export(tables=[TABLES["traces"]])
    key = deployment.project.object_key(TABLES["traces"], HOUR)
    whole = deployment.store.read(key)
    bytes_of_nine_rows = whole[:-1].rindex(b"\n") + 1
    deployment.server.break_next(Fault("truncate", match="t.input", after_bytes=bytes_of_nine_rows))

    with pytest.raises(WindowError, match="holds 9 rows, ClickHouse counts 10"):
        deployment.export(tables=[TABLES["traces"]])

    assert deployment.store.read(key) == whole


@pytest.mark.defect("D10")
def test_d10_the_manifest_has_the_row_count_of_parquet_files(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t1"), trace("t2"))
    deployment.export()
    assert {file.table: file.row_count for file in deployment.manifest().files}["traces"] == 2


@pytest.mark.defect("D11")
def test_d11_an_empty_csv_has_its_header_and_columns_keep_their_order(deployment: Deployment) -> None:
    deployment.encoding = CSV
    deployment.export()
    key = deployment.project.object_key(TABLES["observations"], HOUR)
    [header] = csv.reader(io.StringIO(deployment.store.read(key).decode()))
    assert header == TABLES["observations"].column_names

    shuffled = TABLES["observations"].only(groups=["usage", "core"])
    assert shuffled.column_names == [name for name in header if name in shuffled.column_names]


@pytest.mark.defect("D11")
@pytest.mark.parametrize("encoding", [JSONL, JSON, CSV], ids=lambda e: e.extension)
def test_d11_numbers_keep_every_digit_and_no_quotes(deployment: Deployment, encoding: Encoding) -> None:
    deployment.encoding = encoding
    usage, cost = {"input": 2**64 - 1}, {"total": "123456.123456789012"}
    deployment.insert("observations", observation("o", usage_details=usage, total_cost="123456.123456789012"))
    deployment.insert("observations", observation("p", cost_details=cost))

    deployment.export()

    key = deployment.project.object_key(TABLES["observations"], HOUR)
    text = deployment.store.read(key).decode().replace('""', '"')
    assert '{"input":18446744073709551615}' in text
    assert '{"total":123456.123456789012}' in text
    expected = (
        '"123456.123456789012"' if encoding.format is FileFormat.CSV else '"total_cost":123456.123456789012,'
    )
    assert expected in text
