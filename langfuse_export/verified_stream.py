"""Bytes on their way from ClickHouse to the store: counted, summed and checked as they pass."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
        self._content_type = encoding.content_type
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
    def sha256(self) -> str:
        """SHA-256 of the object, hex."""
        return self._digest.hexdigest()

    @property
    def rows(self) -> int:
        """Rows in the stream."""
        return self.content.rows

    @property
    def verified(self) -> "Verified":
        """The object that the stream has become."""
        assert self._agreed is not None
        return Verified(self.content, self._agreed, self.sha256, self._content_type)


@dataclass(frozen=True)
class Verified:
    """What is known of an object once its content is.

    Attributes:
        agreed: ClickHouse's count that the content agrees with.
        sha256: hex; None if the bytes did not pass here.
    """

    content: Content
    agreed: SourceSummary
    sha256: str | None
    content_type: str
