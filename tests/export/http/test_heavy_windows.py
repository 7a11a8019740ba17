"""What ClickHouse cannot read at once is read in parts, and is one verified object all the same."""

import hashlib
import io
import json
from dataclasses import replace
from datetime import datetime

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langfuse_export.exporter import NoProgress
from langfuse_export.formats import Encoding
from langfuse_export.parts import PartSize
from langfuse_export.tables import TABLES
from tests.export.http.exporting import ENCODINGS, HOUR, JSONL, PARQUET, Deployment
from tests.export.http.heavy import (
    HEAVY_ROWS,
    KEY,
    MEMORY,
    OBSERVATIONS,
    TOO_MUCH_AT_ONCE,
    exporter_of_parts,
    exporter_within,
    fail_in_the_second_part,
    insert_heavy_observations,
    insert_observations,
    payload_queries,
    staged,
)
from tests.export.http.strategies import MAKERS, versions
from tests.export.http.test_final import SLOW, exported_rows, true_rows
from tests.rows import NOON, Row, observation
from tests.servers.s3 import S3Server


@pytest.mark.parametrize("encoding", [PARQUET, JSONL], ids=lambda e: e.extension)
@pytest.mark.defect("F8")
def test_a_window_beyond_the_memory_of_a_query_becomes_one_object(
    deployment: Deployment, encoding: Encoding
) -> None:
    insert_heavy_observations(deployment.server)
    deployment.encoding = encoding

    result = exporter_within(deployment, MEMORY).export(HOUR, [OBSERVATIONS])

    file = result.exported["observations"].file
    assert file.parts > 1
    assert file.row_count == HEAVY_ROWS == result.exported["observations"].source_rows
    rows = deployment.rows("observations")
    assert len(rows) == len({row["id"] for row in rows}) == HEAVY_ROWS
    assert all(len(row["input"]) == 150_000 for row in rows)
    [name] = deployment.files()  # nothing is left of the parts
    data = (deployment.blobs / name).read_bytes()
    assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_other_readers_find_the_same_in_a_parquet_file_of_parts(deployment: Deployment) -> None:
    insert_observations(deployment)
    deployment.server.break_next(TOO_MUCH_AT_ONCE)

    deployment.export(tables=[OBSERVATIONS])

    path = deployment.blobs / KEY
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups == 2
    ids = [f"o{n:03d}" for n in range(20)]
    assert duckdb.execute(f"SELECT id FROM '{path}' WHERE input = 'of o007'").fetchall() == [("o007",)]
    assert [id for (id,) in duckdb.execute(f"SELECT id FROM '{path}' ORDER BY id").fetchall()] == ids
    found = deployment.server.rows(f"SELECT id FROM file('{path}', 'Parquet') WHERE id >= 'o015' ORDER BY id")
    assert [row["id"] for row in found] == ids[15:]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
@pytest.mark.parametrize("name", list(TABLES))
def test_parts_of_random_rows_are_exactly_what_final_returns(
    deployment: Deployment, name: str, encoding: Encoding
) -> None:
    """Every key is a part of its own; versions differ in time, payload and deletion."""
    table = TABLES[name]
    deployment.encoding = encoding

    @settings(max_examples=4, suppress_health_check=SLOW)
    @given(st.lists(versions(name), max_size=9), st.booleans())
    def check(rows: list[Row], merged: bool) -> None:
        deployment.server.execute(f"TRUNCATE TABLE {table.source}")
        for at in range(0, len(rows), 3):
            deployment.insert(table.source, *rows[at : at + 3])
        if merged:
            deployment.server.execute(f"OPTIMIZE TABLE {table.source} FINAL")

        exporter_of_parts(deployment, rows=1).export(HOUR, [table])

        assert exported_rows(deployment, table) == true_rows(deployment, table)

    check()


@pytest.mark.parametrize("name", ["traces", "scores", "events"])
def test_every_table_is_cut_by_its_own_key(deployment: Deployment, name: str) -> None:
    table = TABLES[name]
    deployment.insert(table.source, *[MAKERS[name](f"id{n}", NOON.replace(minute=n)) for n in range(12)])

    result = exporter_of_parts(deployment, rows=5).export(HOUR, [table])

    assert result.exported[name].file.parts == 3
    assert deployment.ids(name) == sorted(f"id{n}" for n in range(12))


def test_a_file_of_parts_says_when_its_first_part_was_read(deployment: Deployment) -> None:
    insert_observations(deployment)
    fail_in_the_second_part(deployment)
    plan = json.loads((deployment.blobs / staged(deployment)[-1]).read_text())

    file = deployment.export(tables=[OBSERVATIONS]).exported["observations"].file

    first = plan["parts"][0]["staged"]["read_at"]
    assert datetime.fromisoformat(file.read_at) == datetime.fromisoformat(first)


def test_the_next_window_begins_with_the_size_that_worked(deployment: Deployment) -> None:
    insert_observations(deployment)
    deployment.server.break_next(replace(TOO_MUCH_AT_ONCE, times=2))
    exporter = deployment.exporter()
    first = exporter.export(HOUR, [OBSERVATIONS]).exported["observations"]
    assert (first.file.parts, first.part_size) == (4, PartSize(5))
    seen = len(deployment.server.requests)

    second = exporter.export(HOUR, [OBSERVATIONS]).exported["observations"]

    assert (second.file.parts, second.part_size) == (4, PartSize(5, windows=1))
    assert len(payload_queries(deployment, seen)) == 4


def test_a_window_that_fits_is_read_at_once_whatever_was_heavy_before(deployment: Deployment) -> None:
    insert_observations(deployment)

    exported = exporter_of_parts(deployment, rows=20).export(HOUR, [OBSERVATIONS]).exported["observations"]

    assert (exported.file.parts, exported.part_size) == (1, PartSize(20))


def test_a_window_that_fits_costs_nothing_more(deployment: Deployment) -> None:
    insert_observations(deployment)
    deployment.export(tables=[OBSERVATIONS])
    seen = len(deployment.server.requests)

    deployment.export(tables=[OBSERVATIONS])

    count, payload = deployment.server.requests[seen:]
    assert "count()" in count.sql
    assert "{part_" not in payload.sql + count.sql
    assert "output_format_parquet_write_page_index" not in payload.parameters
    assert deployment.files() == [KEY]


@pytest.mark.defect("F5")
def test_a_quiet_window_is_an_empty_file_and_no_split(deployment: Deployment) -> None:
    """The fork takes small files for broken ones and halves down to its floor."""
    seen = len(deployment.server.requests)

    result = exporter_of_parts(deployment, rows=1).export(HOUR, [OBSERVATIONS])

    assert result.exported["observations"].file.row_count == 0
    assert len(payload_queries(deployment, seen)) == 1
    assert pq.read_table(io.BytesIO((deployment.blobs / KEY).read_bytes())).num_rows == 0


def test_rows_that_arrive_between_the_parts_are_no_error(deployment: Deployment) -> None:
    insert_observations(deployment)
    exporter = exporter_of_parts(deployment, rows=10)

    class MeanwhileIngestion(NoProgress):
        """Rows arrive for both parts while the first is read."""

        arrived = False

        def bytes_read(self, count: int) -> None:
            """See `Progress`."""
            if not self.arrived:
                self.arrived = True
                deployment.insert("observations", observation("o000x"), observation("o019x"))

    exporter.progress = MeanwhileIngestion()

    exporter.export(HOUR, [OBSERVATIONS])

    ids = deployment.ids("observations")
    assert "o019x" in ids
    assert len(ids) == len(set(ids)) >= 21


def test_parts_are_joined_in_a_bucket_and_leave_nothing_there(deployment: Deployment, s3: S3Server) -> None:
    s3.create_bucket("heavy")
    in_bucket = deployment.with_(destination=s3.store_config("heavy", "langfuse/"), tables=[OBSERVATIONS])
    insert_observations(in_bucket)
    in_bucket.server.break_next(TOO_MUCH_AT_ONCE)

    in_bucket.export()

    assert len(in_bucket.ids("observations")) == 20
    assert s3.keys("heavy") == [
        "langfuse/p1/manifests/2026-06-01T13-00-00.json",
        f"langfuse/{KEY}",
    ]
    assert s3.open_uploads("heavy") == {}
