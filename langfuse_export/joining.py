"""Joins the files of a window's parts into the file that one query would have written, as they stream."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from langfuse_export.errors import VerificationError
from langfuse_export.formats import FileFormat
from langfuse_export.parquet_footer import MAGIC, FooterError
from langfuse_export.parquet_merge import FooterMerger


@dataclass(frozen=True)
class PartFile:
    """A part's file.

    Attributes:
        chunks: its bytes, without compression around them.
        data_end: where in a Parquet file the row groups end and the footer starts.
    """

    chunks: Iterator[bytes]
    data_end: int | None


def join(file_format: FileFormat, files: Iterable[PartFile]) -> Iterator[bytes]:
    """The bytes of the joined file. Raises VerificationError where the files do not fit together."""
    return _JOINERS[file_format](files)


def _join_lines(files: Iterable[PartFile]) -> Iterator[bytes]:
    for file in files:
        yield from file.chunks


def _join_csv(files: Iterable[PartFile]) -> Iterator[bytes]:
    """One header. The names of columns have no newlines."""
    header: bytes | None = None
    for file in files:
        chunks = iter(file.chunks)
        start = b""
        while b"\n" not in start and (chunk := next(chunks, b"")):
            start += chunk
        line, newline, rest = start.partition(b"\n")
        if header is None:
            header = line
            yield line + newline
        elif line != header:
            raise VerificationError("the headers of the parts differ")
        yield rest
        yield from chunks


_OPEN, _CLOSE = b"[\n", b"\n]\n"


def _join_arrays(files: Iterable[PartFile]) -> Iterator[bytes]:
    """One array of the rows of ClickHouse's arrays, of which an empty one is `[`, an empty line and `]`."""
    yield _OPEN
    has_rows = False
    for file in files:
        separator = b",\n" if has_rows else b""
        for chunk in _within_array(file.chunks):
            yield separator + chunk
            has_rows, separator = True, b""
    yield _CLOSE


def _within_array(chunks: Iterator[bytes]) -> Iterator[bytes]:
    kept = b""
    is_open = False
    for chunk in chunks:
        kept += chunk
        if not is_open and len(kept) >= len(_OPEN):
            kept, is_open = kept.removeprefix(_OPEN), True
        if is_open and len(kept) > len(_CLOSE):
            yield kept[: -len(_CLOSE)]
            kept = kept[-len(_CLOSE) :]
    if kept != _CLOSE:
        raise VerificationError(f"the array of a part ends with {kept!r}")


def _join_parquet(files: Iterable[PartFile]) -> Iterator[bytes]:
    merger = FooterMerger()
    yield MAGIC
    try:
        for file in files:
            assert file.data_end is not None
            at, footer = 0, b""
            for chunk in file.chunks:
                data = chunk[max(0, len(MAGIC) - at) : max(0, file.data_end - at)]
                footer += chunk[max(0, file.data_end - at) :]
                at += len(chunk)
                if data:
                    yield data
            merger.add(footer[:-8], file.data_end)
        yield merger.finish()
    except FooterError as error:
        raise VerificationError(f"the parts cannot be joined: {error}") from error


_JOINERS: dict[FileFormat, Callable[[Iterable[PartFile]], Iterator[bytes]]] = {
    FileFormat.JSONL: _join_lines,
    FileFormat.CSV: _join_csv,
    FileFormat.JSON: _join_arrays,
    FileFormat.PARQUET: _join_parquet,
}
