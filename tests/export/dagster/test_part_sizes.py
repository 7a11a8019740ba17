"""Dagster remembers how much of a heavy table ClickHouse could read at once."""

from datetime import timedelta

from langfuse_export.manifest import Manifest
from langfuse_export.parts import WINDOWS_BEFORE_LARGER, PartSize
from langfuse_export.tables import TABLES
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.dagster.deployment import START, Deployment, FlakyClickHouse, hour
from tests.rows import trace

TRACES = [TABLES["traces"]]


def test_the_next_run_begins_with_the_size_that_worked(deployment: Deployment) -> None:
    rows = [trace(f"{n}-{m}", START + timedelta(hours=n, minutes=m)) for n in range(2) for m in range(10)]
    deployment.insert("traces", *rows)
    flaky = FlakyClickHouse(deployment.engine, [ClickHouseError("memory", 241), ClickHouseError("time", 159)])
    deployment.clickhouse = flaky

    assert deployment.run("2026-06-01T00", "2026-06-01T00", tables=TRACES).success
    streams = len(flaky.streamed)
    assert deployment.run("2026-06-01T01", "2026-06-01T01", tables=TRACES).success

    first, second = (deployment.materialization("traces", f"2026-06-01T0{n}") for n in range(2))
    assert streams == 2 + 4  # at once, a half, and four quarters
    assert len(flaky.streamed) - streams == 4
    assert (first["parts"], first["part_rows"], first["part_rows_windows"]) == (4, 3, 0)
    assert (second["parts"], second["part_rows"], second["part_rows_windows"]) == (4, 3, 1)
    assert deployment.ids("traces", hour(1)) == [f"1-{m}" for m in range(10)]


def test_a_small_window_neither_uses_nor_forgets_the_size(deployment: Deployment) -> None:
    deployment.insert("traces", *[trace(f"{m}", START + timedelta(minutes=m)) for m in range(10)])
    deployment.insert("traces", trace("alone", START + timedelta(hours=1)))
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [ClickHouseError("memory", 241)])
    deployment.run("2026-06-01T00", "2026-06-01T00", tables=TRACES)

    deployment.run("2026-06-01T01", "2026-06-01T01", tables=TRACES)

    small = deployment.materialization("traces", "2026-06-01T01")
    assert (small["parts"], small["part_rows"]) == (1, 5)


def test_a_table_that_was_never_heavy_has_no_size(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t", START))
    deployment.run("2026-06-01T00", "2026-06-01T00")

    assert "part_rows" not in deployment.materialization("traces", "2026-06-01T00")
    store = BlobStore(deployment.first.destination)
    manifest = Manifest.model_validate_json(store.read(deployment.first.manifest_key(hour(0))))
    assert {file.parts for file in manifest.files} == {1}


def test_twice_the_size_is_tried_after_a_day_of_hours_without_trouble() -> None:
    size = PartSize(1000)
    for _ in range(WINDOWS_BEFORE_LARGER - 1):
        size = size.after_parts()
        assert size.rows == 1000

    assert size.after_parts() == PartSize(2000)
