"""How files are counted and recognised as whole, whatever chunks they come in."""

import csv
import gzip
import io
import itertools
import json
import struct
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from langfuse_export.errors import VerificationError
from langfuse_export.formats import Compression, Encoding, FileFormat
from langfuse_export.parquet_footer import FooterError, parse_footer

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
TEXT |= st.sampled_from(['"', '""', '","', "\n", '"\n"', "a\n\nb", '\\"', "[\n\n]\n"])
ROWS = st.lists(st.tuples(TEXT, TEXT), max_size=6)


def _csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """As ClickHouse's CSVWithNames writes strings."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(("id", "input"))
    writer.writerows(rows)
    return out.getvalue().encode()


def _jsonl(rows: Iterable[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"id": a, "input": b}) + "\n" for a, b in rows).encode()


def _json(rows: Iterable[tuple[str, str]]) -> bytes:
    lines = ",\n".join(json.dumps({"id": a, "input": b}) for a, b in rows)
    return f"[\n{lines}\n]\n".encode()


FORMATS = {FileFormat.CSV: _csv, FileFormat.JSONL: _jsonl, FileFormat.JSON: _json}


def _count(kind: FileFormat, data: bytes, cuts: Iterable[int] = ()) -> int:
    inspector = Encoding(kind).inspector("time")
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(bounds):
        inspector.feed(data[start:end])
    return inspector.finish().rows


@pytest.mark.parametrize("kind", FORMATS)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 300), max_size=8))
def test_rows_are_counted_in_any_chunking(
    kind: FileFormat, rows: list[tuple[str, str]], cuts: list[int]
) -> None:
    assert _count(kind, FORMATS[kind](rows), cuts) == len(rows)


@pytest.mark.parametrize("kind", FORMATS)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), keep=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_is_refused_or_counts_fewer_rows(
    kind: FileFormat, rows: list[tuple[str, str]], keep: float
) -> None:
    """A CSV or JSONL file cut between two rows looks whole; only ClickHouse's count tells."""
    data = FORMATS[kind](rows)
    try:
        counted = _count(kind, data[: int(len(data) * keep)])
    except VerificationError:
        return
    assert kind is not FileFormat.JSON
    assert counted < len(rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_appended_exception_is_refused(kind: FileFormat) -> None:
    data = FORMATS[kind]([("a", "b")]) + b"Code: 241. DB::Exception: Memory limit exceeded. (MEMORY)"
    with pytest.raises(VerificationError):
        _count(kind, data)
    with pytest.raises(VerificationError):
        _count(kind, data + b"\n")


@pytest.mark.parametrize("compression", list(Compression))
@given(chunks=st.lists(st.binary(max_size=2000), max_size=10))
def test_compressed_files_open_with_the_usual_tools(compression: Compression, chunks: list[bytes]) -> None:
    compressor = Encoding(FileFormat.JSONL, compression).compressor()
    data = b"".join(compressor.compress(chunk) for chunk in chunks) + compressor.flush()
    if compression is Compression.GZIP:
        data = gzip.decompress(data)
    if compression is Compression.ZSTD:
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    assert data == b"".join(chunks)


def _parquet(rows: int) -> bytes:
    table = pa.table(
        {
            "id": [f"row {n}" for n in range(rows)],
            "timestamp": pa.array([1_000 + n for n in range(rows)], pa.timestamp("ms")),
            "tags": pa.array([["a", "b"]] * rows, pa.list_(pa.string())),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=100)
    return out.getvalue()


@pytest.mark.parametrize("rows", [1, 100, 1000])
def test_a_footer_tells_rows_groups_and_times(rows: int) -> None:
    data = _parquet(rows)

    footer = parse_footer(data[-50_000:], len(data), "timestamp")

    assert footer.rows == rows
    assert sum(footer.row_group_rows) == rows
    assert (footer.time_min, footer.time_max) == (1_000, 999 + rows)
    assert footer.data_end == footer.start
    assert _count(FileFormat.PARQUET, data, range(0, len(data), 777)) == rows


def test_every_parquet_file_that_is_cut_is_refused() -> None:
    data = _parquet(300)
    for end in range(0, len(data), 7):
        with pytest.raises(VerificationError):
            _count(FileFormat.PARQUET, data[:end])


@pytest.mark.defect("D10")
def test_a_parquet_file_with_a_hole_or_an_appendix_is_refused() -> None:
    data = _parquet(300)
    with pytest.raises(VerificationError, match="bytes arrived"):
        _count(FileFormat.PARQUET, data[:100] + data[200:])
    with pytest.raises(VerificationError):
        _count(FileFormat.PARQUET, data + b"Code: 241. DB::Exception")


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5))
@example([(2, 35)])  # a number where the name of the writer should be
def test_a_damaged_footer_is_an_error_and_nothing_worse(damage: list[tuple[int, int]]) -> None:
    data = bytearray(_parquet(10))
    (length,) = struct.unpack("<I", data[-8:-4])
    for at, value in damage:
        data[-8 - length + at % (length + 8)] = value
    try:
        parse_footer(bytes(data), len(data), "timestamp")
    except FooterError:
        return
    assert struct.unpack("<I", data[-8:-4])[0] <= len(data) - 12


@pytest.mark.parametrize("size", [0, 3, 11, 12])
def test_what_is_too_short_for_parquet_is_refused(size: int) -> None:
    with pytest.raises(FooterError, match="footer"):
        parse_footer(b"PAR1PAR1PAR1"[:size], size, "timestamp")


@pytest.mark.parametrize(
    ("rows", "expected"), [(0, 16 << 20), (500_000, 16 << 20), (1_000_000, 32 << 20), (10**8, 128 << 20)]
)
def test_row_groups_grow_with_the_window_so_that_its_footer_stays_small(rows: int, expected: int) -> None:
    settings = Encoding(FileFormat.PARQUET).settings(20_000, rows)

    assert settings["output_format_parquet_row_group_size_bytes"] == expected
