"""ClickHouse writes the file of a window into the bucket itself; the worker verifies it and puts it in place.

Nothing but the footer of the file passes through the worker. ClickHouse has the bucket's credentials in a
named collection, so that no query text holds them.
"""

from dataclasses import dataclass, replace

from langfuse_export.errors import ConflictError, VerificationError, server_transfer_error
from langfuse_export.inspectors import FOOTER_TAIL_BYTES, parquet_content
from langfuse_export.parquet_footer import TRAILER_BYTES, FooterError, footer_bytes
from langfuse_export.staging import Staging, discard
from langfuse_export.verified_stream import Verified
from langfuse_export.window_source import SourceSummary, WindowSource
from langfuse_worker.blobstore import BlobStore, ObjectEnd, ObjectNotFoundError, WrittenObject
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError, Query

# The table function of each store, and its argument for the key.
_FUNCTIONS = {"s3": ("s3", "filename"), "az": ("azureBlobStorage", "blob_path")}
# Blocks as they come: an INSERT would first gather 256 MB of them.
_AS_THEY_COME = {"min_insert_block_size_rows": 1, "min_insert_block_size_bytes": 1}
# By default ClickHouse retries for most of an hour, and Dagster retries as well.
_SETTINGS = {"s3": {"s3_retry_attempts": 6}, "az": {}}
# In a key, what PARTITION BY says of the rows in that object.
PARTITION_ID = "{_partition_id}"
_S3_COPY_BYTES = 5 << 30  # what S3 copies at once


def insert_into_bucket(
    store: BlobStore, collection: str, key: str, query: Query, partition_by: str = ""
) -> Query:
    """The query with its rows going into a Parquet object, or one for each value of an expression.

    Args:
        store: the destination; the collection's address is that of its bucket.
        collection: ClickHouse's named collection with the credentials.
        key: key below the destination's prefix, without characters that have a meaning to ClickHouse.
        query: the rows.
        partition_by: SQL of a string that stands in the key of each row's object as PARTITION_ID.
    """
    scheme = store.config.scheme
    function, argument = _FUNCTIONS[scheme]
    target = f"{function}({collection}, {argument} = '{store.whole_key(key)}', format = 'Parquet')"
    partition = f"\nPARTITION BY {partition_by}" if partition_by else ""
    settings = {**query.settings, **_AS_THEY_COME, **_SETTINGS[scheme]}
    return replace(query, sql=f"INSERT INTO FUNCTION {target}{partition}\n{query.sql}", settings=settings)


def write_by_server(
    clickhouse: ClickHouse, store: BlobStore, collection: str, key: str, query: Query, partition_by: str = ""
) -> None:
    """Have ClickHouse write objects, and kill the query if this is left before ClickHouse answers.

    Args: those of `insert_into_bucket`.

    Raises:
        ClickHouseError: the query failed, or the collection may not or cannot be used.
        StoreError: the bucket does not take the object from ClickHouse.
    """
    try:
        clickhouse.execute(insert_into_bucket(store, collection, key, query, partition_by))
    except BaseException as error:
        if not isinstance(error, ClickHouseError) or error.code is None:
            clickhouse.kill(query.query_id)
        if isinstance(error, ClickHouseError):
            raise server_transfer_error(error, collection, store.uri(key)) from error
        raise


@dataclass
class StagedWindow:
    """A window whose object ClickHouse has written together with those of other windows.

    Attributes:
        key: where it waits, below the destination's prefix.
        counted: what ClickHouse counted in the window before it wrote.
        query_id: the query that wrote it.
        is_taken: whether somebody has begun to put it in place, who leaves nothing at `key`.
    """

    key: str
    counted: SourceSummary
    query_id: str
    is_taken: bool = False

    @property
    def has_object(self) -> bool:
        """Whether ClickHouse wrote one: it does so for windows with rows alone."""
        return self.counted.rows > 0


@dataclass(frozen=True)
class ServerTransfer:
    """The way of one window of a table into the bucket.

    Attributes:
        staging: where ClickHouse writes, so that nobody reads what is not verified.
        collection: ClickHouse's named collection with the bucket's address and credentials.
    """

    source: WindowSource
    staging: Staging
    collection: str

    def run(self, query: Query, key: str, before: SourceSummary) -> tuple[WrittenObject, Verified]:
        """Write, verify, commit.

        Args:
            query: the rows of the window.
            key: where the object belongs.
            before: what ClickHouse counts in the window.

        Raises:
            VerificationError: the object is not the whole result.
            ConflictError: another attempt wrote the same object at the same time.
            ClickHouseError, StoreError: one side failed.
            CancelledError: the run was cancelled.
        """
        staged = self.staging.written_by(query.query_id)
        try:
            self._write(query, staged)
        except BaseException:
            discard(self._store, staged)
            raise
        return self.put_in_place(staged, key, before)

    def put_in_place(self, staged: str, key: str, before: SourceSummary) -> tuple[WrittenObject, Verified]:
        """Verify what ClickHouse has written, and commit it; nothing of it stays at `staged`.

        Args and raises as `run`, but for ClickHouse's writing.
        """
        try:
            end = self._end(staged)
            content = parquet_content(
                lambda wanted: end.data[-wanted:], end.bytes, self.source.table.time_column
            )
            agreed = self.source.agree(content.rows, before)
            self.source.cancellation.check()
            committed = self._commit(staged, key, end)
        except BaseException:
            discard(self._store, staged)
            raise
        self.staging.remove()
        store = self._store
        written = WrittenObject(store.whole_key(key), store.uri(key), committed.bytes, committed.e_tag)
        return written, Verified(content, agreed, None, committed.content_type or self._content_type)

    def _write(self, query: Query, staged: str) -> None:
        with self.source.cancellation.watching(query):
            write_by_server(self.source.clickhouse, self._store, self.collection, staged, query)

    def _end(self, staged: str) -> ObjectEnd:
        """The footer of the staged file."""
        try:
            trailer = self._store.end(staged, TRAILER_BYTES).data
            return self._store.end(staged, min(footer_bytes(trailer), FOOTER_TAIL_BYTES))
        except FooterError as error:
            raise VerificationError(f"{self._store.uri(staged)}: {error}") from error
        except ObjectNotFoundError as error:
            raise VerificationError(
                f"ClickHouse has written {self._store.uri(staged)}, but it is not there: the address in the "
                f"named collection {self.collection} must be that of the destination's bucket"
            ) from error

    def _commit(self, staged: str, key: str, end: ObjectEnd) -> ObjectEnd:
        """Put the object in place whole. Its footer is read again, so that it is known to be this one."""
        if self._store.config.scheme == "s3" and end.bytes > _S3_COPY_BYTES:
            self._store.write(key, self._store.stream(staged), self._content_type, end.bytes)
        else:
            self._store.copy(staged, key)
        committed = self._store.end(key, len(end.data))
        if (committed.data, committed.bytes) != (end.data, end.bytes):
            raise ConflictError(f"another run wrote {self._store.uri(key)} at the same time")
        return committed

    @property
    def _store(self) -> BlobStore:
        return self.staging.store

    @property
    def _content_type(self) -> str:
        return self.source.project.encoding.content_type
