"""Makes one Parquet file from several of the same schema without decoding them.

Row groups keep their bytes; only their places in the file change. So the new footer is the old ones with
every offset shifted. Page indexes have offsets outside of the footer, so the files may not have any.
"""

import struct
from collections.abc import Mapping
from typing import Any

from langfuse_export.parquet_footer import MAGIC, NUM_ROWS, ROW_GROUPS, FooterError, ThriftReader, varint

# Field ids of the format's Thrift definition (https://github.com/apache/parquet-format).
_SCHEMA, _COLUMN_ORDERS = 2, 7
_SHIFTED = "shifted"
_FORBIDDEN = "forbidden"
_ORDINAL = "ordinal"
_COLUMN_META_DATA = {9: _SHIFTED, 10: _SHIFTED, 11: _SHIFTED, 14: _SHIFTED}
# file_path, offset_index_offset, column_index_offset and encryption cannot be carried.
_COLUMN_CHUNK = {
    1: _FORBIDDEN,
    2: _SHIFTED,
    3: _COLUMN_META_DATA,
    4: _FORBIDDEN,
    6: _FORBIDDEN,
    8: _FORBIDDEN,
}
_ROW_GROUP: "_Edits" = {1: _COLUMN_CHUNK, 5: _SHIFTED, 7: _ORDINAL}
_Edits = Mapping[int, "str | _Edits"]


class FooterMerger:
    """Takes the footers of files in the order in which their row groups are written; makes the joined one."""

    def __init__(self) -> None:
        self._first: _FileMetaData | None = None
        self._groups: list[bytes] = []
        self._rows = 0
        self._end = len(MAGIC)

    def add(self, footer: bytes, data_end: int) -> None:
        """Add a file.

        Args:
            footer: its `FileMetaData`, without the length and the magic that follow.
            data_end: offset in that file at which its row groups end and its footer starts.

        Raises:
            FooterError: the file's schema differs, or it has what cannot be carried over.
        """
        try:
            metadata = _FileMetaData(footer)
            if self._first is None:
                self._first = metadata
            elif metadata.schema != self._first.schema:
                raise FooterError("the schemas of the parts differ")
            for group in metadata.row_groups:
                edited = _Editor(footer[group], self._end - len(MAGIC), len(self._groups)).edited(_ROW_GROUP)
                self._groups.append(edited)
        except (IndexError, KeyError, struct.error) as error:
            raise FooterError(f"the footer is damaged: {error!r}") from error
        self._rows += metadata.rows
        self._end += data_end - len(MAGIC)

    def finish(self) -> bytes:
        """The end of the joined file: its footer, the footer's length, the magic."""
        if self._first is None:
            raise FooterError("there is no file to join")
        footer = self._first.with_content(self._rows, self._groups)
        return footer + struct.pack("<I", len(footer)) + MAGIC


class _FileMetaData:
    """A footer, cut where a joined one differs."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        reader = ThriftReader(data)
        spans: dict[int, slice] = {}
        self.row_groups: list[slice] = []
        self.rows = 0
        for field, kind in reader.fields():
            start = reader.at
            if field == ROW_GROUPS:
                for _ in range(reader.list_header()[0]):
                    begin = reader.at
                    reader.skip(12)
                    self.row_groups.append(slice(begin, reader.at))
            elif field == NUM_ROWS:
                self.rows = reader.value(kind)
            else:
                reader.skip(kind)
            spans[field] = slice(start, reader.at)
        self._spans = spans
        self.schema = (data[spans[_SCHEMA]], data[spans[_COLUMN_ORDERS]] if _COLUMN_ORDERS in spans else b"")

    def with_content(self, rows: int, groups: list[bytes]) -> bytes:
        """The footer with other rows and row groups."""
        count = len(groups)
        header = bytes([count << 4 | 12]) if count < 15 else bytes([0xF0 | 12]) + varint(count)
        at_rows, at_groups = self._spans[NUM_ROWS], self._spans[ROW_GROUPS]
        return b"".join(
            (
                self._data[: at_rows.start],
                varint(rows << 1),
                self._data[at_rows.stop : at_groups.start],
                header,
                *groups,
                self._data[at_groups.stop :],
            )
        )


class _Editor:
    """Copies a Thrift struct and changes the integers that are named."""

    def __init__(self, data: bytes, shift: int, ordinal: int) -> None:
        self._data = data
        self._reader = ThriftReader(data)
        self._shift = shift
        self._ordinal = ordinal
        self._copied = 0
        self._out: list[bytes] = []

    def edited(self, edits: _Edits) -> bytes:
        """The struct with its edits."""
        self._struct(edits)
        return b"".join((*self._out, self._data[self._copied :]))

    def _struct(self, edits: _Edits) -> None:
        for field, kind in self._reader.fields():
            self._field(field, kind, edits.get(field))

    def _field(self, field: int, kind: int, edit: Any) -> None:
        if edit is None:
            self._reader.skip(kind)
        elif edit == _FORBIDDEN:
            raise FooterError(f"field {field} of a column chunk cannot be carried into a joined file")
        elif edit == _SHIFTED:
            # Writers say 0 where they have no offset.
            self._replace(kind, lambda offset: offset + self._shift if offset else 0)
        elif edit == _ORDINAL:
            self._replace(kind, lambda _: self._ordinal)
        elif kind == 9:
            for _ in range(self._reader.list_header()[0]):
                self._struct(edit)
        else:
            self._struct(edit)

    def _replace(self, kind: int, change: Any) -> None:
        start = self._reader.at
        new = change(self._reader.value(kind))
        self._out += [self._data[self._copied : start], varint(new << 1)]
        self._copied = self._reader.at
