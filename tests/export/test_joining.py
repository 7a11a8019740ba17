"""Files of parts become the file that one query would have written."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langfuse_export.errors import VerificationError
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.joining import PartFile, join
from langfuse_export.parquet_footer import parse_footer
from tests.export.test_formats import FORMATS, ROWS

Rows = list[tuple[str, str]]
TEXT_FORMATS = list(FORMATS)


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _join(kind: FileFormat, files: Iterable[bytes], size: int = 7) -> bytes:
    parts = []
    for data in files:
        is_parquet = kind is FileFormat.PARQUET
        end = parse_footer(data, len(data), "id").start if is_parquet else None
        parts.append(PartFile(_chunks(data, size), end))
    return b"".join(join(kind, parts))


@pytest.mark.parametrize("kind", TEXT_FORMATS)
@given(parts=st.lists(ROWS, min_size=1, max_size=4), size=st.integers(1, 50))
def test_joined_text_is_the_text_of_all_rows(kind: FileFormat, parts: list[Rows], size: int) -> None:
    write = FORMATS[kind]

    joined = _join(kind, map(write, parts), size)

    assert joined == write(list(itertools.chain(*parts)))


def test_headers_that_differ_are_refused() -> None:
    with pytest.raises(VerificationError, match="headers"):
        _join(FileFormat.CSV, [b'"id","input"\n"1","2"\n', b'"id","output"\n"1","2"\n'])


@pytest.mark.parametrize("damaged", [b"", b"[\n", b'[\n{"id":1}', b'[\n{"id":1}\n]', b'{"id":1}\n'])
def test_an_array_that_is_not_whole_is_refused(damaged: bytes) -> None:
    with pytest.raises(VerificationError, match="array"):
        _join(FileFormat.JSON, [b'[\n{"id":1}\n]\n', damaged])


def _parquet(ids: Sequence[int], *, group: int = 3, name: str = "id") -> bytes:
    """A file with dictionaries, statistics, bloom filters and nested columns, and without page indexes."""
    table = pa.table(
        {
            name: pa.array(ids, pa.int64()),
            "text": pa.array([f"text {n % 3}" for n in ids], pa.string()),
            "maybe": pa.array([n if n % 2 else None for n in ids], pa.int64()),
            "tags": pa.array([[str(n)] * (n % 4) for n in ids], pa.list_(pa.string())),
            "usage": pa.array([[("input", n)] for n in ids], pa.map_(pa.string(), pa.int64())),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=group, compression="zstd", bloom_filter_options={name: True})
    return out.getvalue()


IDS = st.lists(st.integers(-(2**40), 2**40), max_size=12)


@given(parts=st.lists(IDS, min_size=1, max_size=5), size=st.integers(1, 5000))
def test_a_joined_parquet_file_has_every_row_group_and_row_in_order(
    parts: list[list[int]], size: int
) -> None:
    files = [_parquet(ids) for ids in parts]

    joined = _join(FileFormat.PARQUET, files, size)

    file = pq.ParquetFile(io.BytesIO(joined))
    groups = [pq.ParquetFile(io.BytesIO(data)).metadata.num_row_groups for data in files]
    assert file.metadata.num_row_groups == sum(groups)
    assert file.metadata.num_rows == sum(map(len, parts))
    expected = pa.concat_tables([pq.read_table(io.BytesIO(data)) for data in files])
    assert file.read().equals(expected)


def test_many_row_groups_are_read_by_duckdb_too(tmp_path: Path) -> None:
    ids = list(range(1000))
    path = tmp_path / "joined.parquet"
    path.write_bytes(_join(FileFormat.PARQUET, [_parquet(ids[:400], group=7), _parquet(ids[400:], group=9)]))

    rows = duckdb.execute(
        f"SELECT id, text, usage FROM '{path}' WHERE id IN (3, 399, 400, 999) ORDER BY id"
    ).fetchall()
    counts = duckdb.execute(
        f"SELECT num_row_groups, num_rows FROM parquet_file_metadata('{path}')"
    ).fetchall()

    assert rows == [(n, f"text {n % 3}", {"input": n}) for n in (3, 399, 400, 999)]
    assert counts == [(58 + 67, 1000)]


def test_statistics_stay_with_their_row_groups() -> None:
    joined = _join(FileFormat.PARQUET, [_parquet([1, 2, 3]), _parquet([70, 80, 90])])

    metadata = pq.ParquetFile(io.BytesIO(joined)).metadata
    found = [metadata.row_group(n).column(0).statistics for n in range(2)]
    assert [(s.min, s.max) for s in found] == [(1, 3), (70, 90)]


def test_what_was_joined_is_verified_like_any_file() -> None:
    joined = _join(FileFormat.PARQUET, [_parquet(range(5)), _parquet(range(9))])

    inspector = Encoding(FileFormat.PARQUET).inspector("id")
    for chunk in _chunks(joined, 100):
        inspector.feed(chunk)

    content = inspector.finish()
    assert (content.rows, content.times) == (14, (0, 8))


def test_joining_joined_files_works() -> None:
    one = _join(FileFormat.PARQUET, [_parquet([1, 2]), _parquet([3])])
    two = _join(FileFormat.PARQUET, [_parquet([]), one, _parquet([4, 5])])
    assert pq.read_table(io.BytesIO(two)).column("id").to_pylist() == [1, 2, 3, 4, 5]


def test_parquet_files_of_other_columns_are_refused() -> None:
    with pytest.raises(VerificationError, match="schemas of the parts differ"):
        _join(FileFormat.PARQUET, [_parquet([1]), _parquet([1], name="key")])


def test_page_indexes_are_refused_because_their_offsets_would_be_wrong() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2]}), out, write_page_index=True)
    with pytest.raises(VerificationError, match="cannot be carried"):
        _join(FileFormat.PARQUET, [out.getvalue()])


def test_empty_files_make_an_empty_file() -> None:
    joined = _join(FileFormat.PARQUET, [_parquet([]), _parquet([])])
    assert pq.read_table(io.BytesIO(joined)).num_rows == 0
    assert json.loads(_join(FileFormat.JSON, [b"[\n\n]\n"] * 2)) == []
    assert list(csv.reader(io.StringIO(_join(FileFormat.CSV, [b'"id"\n'] * 2).decode()))) == [["id"]]
