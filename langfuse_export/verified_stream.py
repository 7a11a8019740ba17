"""Bytes on their way from ClickHouse to the store: counted, summed and checked as they pass."""

import hashlib
from collections.abc import Callable, Iterator

from langfuse_export.formats import Encoding
from langfuse_export.inspectors import Content
from langfuse_export.tables import Table
from langfuse_export.window_source import Cancellation, SourceSummary


class VerifiedStream:
    """Passes bytes on while it counts, sums and checks them; ends in an exception instead of a bad end."""

    def __init__(
        self,
        encoding: Encoding,
        table: Table,
        cancellation: Cancellation,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._inspector = encoding.inspector(table.time_column)
        self._compressor = encoding.compressor()
        self._cancellation = cancellation
        self._on_bytes = on_bytes
        self._unit_us = 1000 if table.has_millisecond_time else 1
        self._digest = hashlib.sha256()
        self.bytes = 0  # before compression
        self._content: Content | None = None
        self._agreed: SourceSummary | None = None

    def pass_through(self, chunks: Iterator[bytes], agree: Callable[[int], SourceSummary]) -> Iterator[bytes]:
        """The bytes of the object. The store commits only if this ends without an exception."""
        for chunk in chunks:
            self._cancellation.check()
            self._inspector.feed(chunk)
            self.bytes += len(chunk)
            self._on_bytes(len(chunk))
            yield from self._out(self._compressor.compress(chunk))
        self._content = self._inspector.finish()
        self._agreed = agree(self._content.rows)
        yield from self._out(self._compressor.flush())
        self._cancellation.check()

    def _out(self, data: bytes) -> Iterator[bytes]:
        if data:
            self._digest.update(data)
            yield data

    @property
    def content(self) -> Content:
        """What the stream held."""
        assert self._content is not None
        return self._content

    @property
    def rows(self) -> int:
        """Rows in the stream."""
        return self.content.rows

    @property
    def times(self) -> tuple[int, int] | None:
        """Smallest and largest time in the file, microseconds since the epoch, where the file tells."""
        if self.content.times is None:
            return None
        low, high = self.content.times
        return low * self._unit_us, high * self._unit_us

    @property
    def agreed(self) -> SourceSummary:
        """ClickHouse's count that the stream agrees with."""
        assert self._agreed is not None
        return self._agreed

    @property
    def sha256(self) -> str:
        """SHA-256 of the object, hex."""
        return self._digest.hexdigest()
