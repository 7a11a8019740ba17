"""Count the rows of a file as its bytes pass, and say at the end whether it is whole.

Nothing is parsed row by row: text rows are counted by their newlines, Parquet rows by the footer.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from langfuse_export.errors import VerificationError
from langfuse_export.parquet_footer import MAGIC, TRAILER_BYTES, FooterError, footer_bytes, parse_footer

# A footer takes about 100 bytes a column and row group; this is enough for some 4,000 row groups.
FOOTER_TAIL_BYTES = 16 << 20


@dataclass(frozen=True)
class Content:
    """What a complete stream held.

    Attributes:
        rows: rows.
        times: smallest and largest value of the time column as the file has them, where the format tells.
        data_end: where in a Parquet file the row groups end and the footer starts.
    """

    rows: int
    times: tuple[int, int] | None = None
    data_end: int | None = None


class Inspector(Protocol):
    """Looks at a stream as it passes and says at the end whether it was complete."""

    def feed(self, chunk: bytes) -> None:
        """See the next bytes of the uncompressed file."""
        ...

    def finish(self) -> Content:
        """Called once at the end of the stream. Raises VerificationError when the file is not whole."""
        ...


class ParquetInspector:
    """Keeps the head and the tail of the file and reads its footer."""

    def __init__(self, time_column: str) -> None:
        self._time_column = time_column
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """See `Inspector.feed`."""
        if len(self._head) < len(MAGIC):
            self._head += chunk[: len(MAGIC) - len(self._head)]
        self._size += len(chunk)
        self._tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes - len(self._tail[0]) >= FOOTER_TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        if self._head != MAGIC:
            raise VerificationError(f"a Parquet file starts with PAR1, this one with {self._head!r}")
        return parquet_content(self._last, self._size, self._time_column)

    def _last(self, wanted: int) -> bytes:
        """The last bytes of the file; fewer if fewer were kept."""
        pieces: deque[bytes] = deque()
        for chunk in reversed(self._tail):
            if wanted <= 0:
                break
            pieces.appendleft(chunk[-wanted:])
            wanted -= len(chunk)
        return b"".join(pieces)


def parquet_content(last: Callable[[int], bytes], size: int, time_column: str) -> Content:
    """What a Parquet file holds, by its footer.

    Args:
        last: gives so many of the last bytes of the file, or as many as there are.
        size: bytes of the whole file.
        time_column: name of the column whose smallest and largest value are wanted.

    Raises:
        VerificationError: the file is not whole.
    """
    try:
        footer = parse_footer(last(footer_bytes(last(TRAILER_BYTES))), size, time_column)
    except FooterError as error:
        raise VerificationError(f"{error}; {size} bytes arrived") from error
    if sum(footer.row_group_rows) != footer.rows:
        raise VerificationError(
            f"the footer counts {footer.rows} rows, its row groups {sum(footer.row_group_rows)}"
        )
    if footer.data_end != footer.start:
        raise VerificationError(
            f"the footer says the data is {footer.data_end} bytes long, {footer.start} bytes arrived"
        )
    if footer.time_min is None or footer.time_max is None:
        return Content(footer.rows, None, footer.start)
    return Content(footer.rows, (footer.time_min, footer.time_max), footer.start)


class _TextInspector:
    """Remembers how a text file begins and ends."""

    def __init__(self) -> None:
        self._head = b""
        self._last = b""
        self._newlines = 0

    def feed(self, chunk: bytes) -> None:
        """See `Inspector.feed`."""
        if len(self._head) < 2:
            self._head = (self._head + chunk[:2])[:2]
        self._last = (self._last + chunk[-4:])[-4:]
        self._newlines += self._count(chunk)

    def _count(self, chunk: bytes) -> int:
        return chunk.count(b"\n")

    def _expect(self, is_whole: bool) -> None:
        if not is_whole:
            raise VerificationError(
                f"the file begins with {self._head!r} and ends with {self._last!r}: cut, or an error"
            )


class JsonLinesInspector(_TextInspector):
    """One JSON object a line; JSON escapes newlines, so lines are rows."""

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        self._expect(self._head[:1] in (b"", b"{") and self._last[-2:] in (b"", b"}\n"))
        return Content(self._newlines)


class JsonArrayInspector(_TextInspector):
    """ClickHouse's array of rows: `[`, one object a line, `]`."""

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        is_empty = self._last == b"[\n\n]\n"[-4:]
        self._expect(self._head == b"[\n" and (is_empty or self._last == b"}\n]\n"))
        return Content(0 if is_empty else self._newlines - 2)


_NOT_QUOTE_OR_NEWLINE = bytes(set(range(256)) - set(b'"\n'))


class CsvInspector(_TextInspector):
    """A header and rows with every value quoted: rows are the newlines outside of quotes."""

    def __init__(self) -> None:
        super().__init__()
        self._quoted = False

    def _count(self, chunk: bytes) -> int:
        marks = chunk.translate(None, _NOT_QUOTE_OR_NEWLINE).replace(b'""', b"")
        parts = marks.split(b'"')
        outside = parts[1::2] if self._quoted else parts[0::2]
        self._quoted ^= len(parts) % 2 == 0
        return sum(len(part) for part in outside)

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        self._expect(not self._quoted and self._head[:1] == b'"' and self._last[-2:] == b'"\n')
        return Content(self._newlines - 1)
