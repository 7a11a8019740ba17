"""Reads the footer of a Parquet file from the tail of its byte stream.

The footer is a Thrift compact message (https://github.com/apache/parquet-format: `FileMetaData`); only the
fields that verification needs are interpreted. A Parquet library would cost more memory than the export.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAGIC = b"PAR1"
TRAILER_BYTES = 8  # length of the footer, and the magic again
NUM_ROWS, ROW_GROUPS = 3, 4  # fields of FileMetaData


class FooterError(ValueError):
    """The bytes do not end with a complete Parquet footer."""


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says of itself.

    Attributes:
        rows: rows of the file.
        row_group_rows: rows of each row group.
        data_end: offset in the file where column data, indexes and filters end; the footer must start there.
        start: offset of the footer in the file, by the count of bytes that passed.
        time_min: smallest value of the time column (its raw integer), None without rows or statistics.
        time_max: largest value, likewise.
    """

    rows: int
    row_group_rows: tuple[int, ...]
    data_end: int
    start: int
    time_min: int | None
    time_max: int | None


def parse_footer(tail: bytes, size: int, time_column: str) -> Footer:
    """Parse the footer.

    Args:
        tail: the last bytes of the file, the whole footer among them.
        size: bytes of the whole file.
        time_column: name of the column whose statistics are wanted.

    Raises:
        FooterError: there is no footer, or it does not fit the file.
    """
    if size < 12 or len(tail) < 12:
        raise FooterError("the file does not end with a Parquet footer")
    length = footer_bytes(tail[-TRAILER_BYTES:]) - TRAILER_BYTES
    if length > size - 12:
        raise FooterError(f"the footer claims {length} bytes of a file of {size}")
    if length > len(tail) - 8:
        raise FooterError(f"the footer of {length} bytes is longer than the {len(tail)} that were kept")
    try:
        return _footer(ThriftReader(tail[-8 - length : -8]), size - 8 - length, time_column.encode())
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise FooterError(f"the footer is damaged: {error!r}") from error


def footer_bytes(trailer: bytes) -> int:
    """How long the footer is, its trailer included. Raises FooterError if this is no trailer."""
    if len(trailer) != TRAILER_BYTES or trailer[-4:] != MAGIC:
        raise FooterError(f"the file ends with {trailer!r}, not with a Parquet footer")
    return struct.unpack("<I", trailer[:4])[0] + TRAILER_BYTES


@dataclass(frozen=True)
class _RowGroup:
    """What is kept of a row group.

    Attributes:
        end: offset in the file where its columns, their indexes and filters end.
        times: smallest and largest value of the time column; None without such, or its statistics.
    """

    rows: int
    end: int
    times: tuple[int, int] | None


def _footer(reader: "ThriftReader", start: int, time_column: bytes) -> Footer:
    """Read `FileMetaData`, a row group at a time: as objects, all of them take forty times their bytes."""
    rows: int | None = None
    groups: list[_RowGroup] = []
    for field, kind in reader.fields():
        if field == NUM_ROWS:
            rows = reader.value(kind)
        elif field == ROW_GROUPS:
            count, _ = reader.list_header()
            groups = [_row_group(reader.struct(), time_column) for _ in range(count)]
        else:
            reader.skip(kind)
    if rows is None:
        raise KeyError("num_rows")
    times = [group.times for group in groups]
    known = [pair for pair in times if pair is not None]
    return Footer(
        rows=rows,
        row_group_rows=tuple(group.rows for group in groups),
        data_end=max((group.end for group in groups), default=len(MAGIC)),
        start=start,
        time_min=min((low for low, _ in known), default=None) if len(known) == len(times) else None,
        time_max=max((high for _, high in known), default=None) if len(known) == len(times) else None,
    )


def _row_group(group: dict[int, Any], time_column: bytes) -> _RowGroup:
    chunks = group[1]
    times = next((_bounds(chunk) for chunk in chunks if chunk[3][3] == [time_column]), None)
    return _RowGroup(group[3], max(map(_chunk_end, chunks)), times)


def _chunk_end(chunk: dict[int, Any]) -> int:
    """Where a column chunk, its indexes and its bloom filter end."""
    meta = chunk[3]
    data_start = min(offset for offset in (meta.get(11), meta[9]) if offset is not None)
    ends = [data_start + meta[7]]
    for owner, offset, length in ((chunk, 4, 5), (chunk, 6, 7), (meta, 14, 15)):
        if owner.get(offset) is not None:
            ends.append(owner[offset] + owner.get(length, 0))
    return max(ends)


def _bounds(chunk: dict[int, Any]) -> tuple[int, int] | None:
    statistics = chunk[3].get(12, {})
    low, high = statistics.get(6), statistics.get(5)
    if low is None or high is None or len(low) != 8 or len(high) != 8:
        return None
    return struct.unpack("<q", low)[0], struct.unpack("<q", high)[0]


class ThriftReader:
    """A reader of the Thrift compact protocol into plain dicts (field id to value) and lists.

    Raises IndexError, ValueError or struct.error on what is no such message.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self) -> dict[int, Any]:
        """Read fields up to the stop byte."""
        return {field: self.value(kind) for field, kind in self.fields()}

    def fields(self) -> Iterator[tuple[int, int]]:
        """Ids and types of a struct's fields; whoever iterates reads or skips each value."""
        field = 0
        while header := self._byte():
            kind, delta = header & 0x0F, header >> 4
            field = field + delta if delta else self._zigzag()
            yield field, kind

    def value(self, kind: int) -> Any:
        """Read a field's value."""
        if kind in (1, 2):  # a field's type tells its truth
            return kind == 1
        return self._element(kind)

    def skip(self, kind: int) -> None:
        """Pass over a field's value."""
        self.value(kind)

    def list_header(self) -> tuple[int, int]:
        """Size of a list and the type of its elements, which follow."""
        header = self._byte()
        size, kind = header >> 4, header & 0x0F
        return (self._varint() if size == 15 else size), kind

    def _element(self, kind: int) -> Any:
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 8:
            return self._take(self._varint())
        if kind == 12:
            return self.struct()
        if kind in (9, 10):
            size, inner = self.list_header()
            return [self._element(inner) for _ in range(size)]
        if kind in (1, 2, 3):
            return self._byte()
        if kind == 7:
            return struct.unpack("<d", self._take(8))[0]
        raise ValueError(f"Thrift type {kind} at byte {self.at}")

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _take(self, count: int) -> bytes:
        taken = self._data[self.at : self.at + count]
        if len(taken) != count:
            raise IndexError("end of footer")
        self.at += count
        return taken

    def _varint(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def varint(value: int) -> bytes:
    """A number that is not negative as Thrift writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
