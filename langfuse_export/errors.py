"""Why an export failed, whether trying again can help, and the word for it in metrics and logs."""

import re
from typing import ClassVar

from langfuse_export.exported_table import ExportedTable
from langfuse_worker.blobstore import ObjectTooLargeError, StoreAccessError, StoreError, StoreFullError
from langfuse_worker.clickhouse import ClickHouseError
from langfuse_worker.store_faults import AccessFault


class ExportError(Exception):
    """An export failed.

    Attributes:
        reason: the `reason` attribute of the failure counter; one of a small, fixed set.
        transient: whether the same export can succeed when it is tried again.
    """

    reason: ClassVar[str] = "unexpected"
    transient: ClassVar[bool] = False


class VerificationError(ExportError):
    """The stream is not the complete, well-formed result that ClickHouse has; nothing was committed."""

    reason = "verification"
    transient = True


class ConflictError(ExportError):
    """Another run wrote the same objects at the same time."""

    reason = "conflict"
    transient = True


class OccupiedError(ExportError):
    """The object key belongs to another window, written with another frequency."""

    reason = "occupied"


class TooEarlyError(ExportError):
    """The window has not ended by ClickHouse's clock, so rows may still be written into it."""

    reason = "too_early"
    transient = True


class TooHeavyError(ExportError):
    """ClickHouse lacks memory or time even for the smallest parts of a window."""

    reason = "too_heavy"


class PricesError(ExportError):
    """The prices of models cannot be read; objects are not written without them."""

    reason = "prices_unavailable"
    transient = True


class CancelledError(ExportError):
    """The run was cancelled."""

    reason = "cancelled"


class WindowError(ExportError):
    """Some tables of a window failed.

    Attributes:
        failures: the exception of each failed table, by name.
        exported: the tables that were committed all the same, by name.
        revision: of the window's manifest, if it names them.
    """

    def __init__(
        self,
        message: str,
        failures: dict[str, Exception],
        exported: dict[str, ExportedTable],
        revision: int | None = None,
    ) -> None:
        super().__init__(message)
        self.failures = failures
        self.exported = exported
        self.revision = revision


# ClickHouse's ErrorCodes.cpp. Faults of the moment: network, overload, restarts, too many queries.
_TRANSIENT_CODES = {
    3: "clickhouse_unavailable",  # UNEXPECTED_END_OF_FILE
    32: "clickhouse_unavailable",  # ATTEMPT_TO_READ_AFTER_EOF
    159: "clickhouse_timeout",  # TIMEOUT_EXCEEDED
    160: "clickhouse_timeout",  # TOO_SLOW
    202: "clickhouse_overloaded",  # TOO_MANY_SIMULTANEOUS_QUERIES
    209: "clickhouse_unavailable",  # SOCKET_TIMEOUT
    210: "clickhouse_unavailable",  # NETWORK_ERROR
    216: "clickhouse_overloaded",  # QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING
    225: "clickhouse_unavailable",  # NO_ZOOKEEPER
    236: "clickhouse_unavailable",  # ABORTED
    241: "clickhouse_memory",  # MEMORY_LIMIT_EXCEEDED
    242: "clickhouse_unavailable",  # TABLE_IS_READ_ONLY
    279: "clickhouse_unavailable",  # ALL_CONNECTION_TRIES_FAILED
    394: "clickhouse_cancelled",  # QUERY_WAS_CANCELLED, by a person or a restart
    439: "clickhouse_overloaded",  # CANNOT_SCHEDULE_TASK
    473: "clickhouse_overloaded",  # DEADLOCK_AVOIDED
    745: "clickhouse_overloaded",  # SERVER_OVERLOADED
    999: "clickhouse_unavailable",  # KEEPER_EXCEPTION
}

# Limits on the rows and bytes of a query, which administrators set in profiles.
# TOO_MANY_ROWS, SET_SIZE_LIMIT_EXCEEDED, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES
_LIMIT_CODES = {158, 191, 307, 396}
_RESOURCE_REASONS = {"clickhouse_memory", "clickhouse_timeout", "clickhouse_limit"}
_OTHERS_MEMORY = re.compile(r"\(total\)|\(for user\)|\b(Total|User) memory limit", re.IGNORECASE)

# What a query may meet that writes with a named collection.
_COLLECTION_REMEDIES = {
    36: "it needs the keys of the examples in deploy/clickhouse/server-mode, and no others",  # BAD_ARGUMENTS
    497: "the user of exports needs the grants of deploy/clickhouse/server-mode/grants.xml, which are NAMED "
    "COLLECTION ON {collection}, WRITE ON S3 (or AZURE) and CREATE TEMPORARY TABLE",  # ACCESS_DENIED
    669: "ClickHouse has none; see deploy/clickhouse/server-mode",  # NAMED_COLLECTION_DOESNT_EXIST
}
_S3_ERROR, _STD_EXCEPTION = 499, 1001  # Azure's SDK throws the latter
_BUCKET_REFUSES = re.compile(
    r"access.?denied|access key|signature|expired|authenticate|not authorized|: 403 |does not exist",
    re.IGNORECASE,
)

_STOPS_PROJECT = {
    "cancelled",
    "clickhouse_overloaded",
    "clickhouse_unavailable",
    "destination_access",
    "destination_full",
    "destination_unavailable",
    "prices_unavailable",
}


def reason_of(error: BaseException) -> str:
    """The failure counter's `reason` of any exception of the export path."""
    if not isinstance(error, Exception):  # KeyboardInterrupt, and Dagster's own interrupt
        return CancelledError.reason
    if isinstance(error, WindowError):
        reasons = [reason_of(failure) for failure in error.failures.values()]
        # What every window would meet says more than what one table did.
        return next(filter(meets_every_window, reasons), reasons[0])
    if isinstance(error, ExportError):
        return error.reason
    if isinstance(error, ClickHouseError):
        if error.code is None:
            return "clickhouse_unavailable"
        if error.code in _LIMIT_CODES:
            return "clickhouse_limit"
        return _TRANSIENT_CODES.get(error.code, "clickhouse_refused")
    if isinstance(error, StoreAccessError):
        return "destination_access"
    if isinstance(error, ObjectTooLargeError):
        return "object_too_large"
    if isinstance(error, StoreError):
        return "destination_full" if isinstance(error, StoreFullError) else "destination_unavailable"
    return ExportError.reason


def is_transient(error: BaseException) -> bool:
    """Whether a retry with some delay makes sense; unknown faults do not retry."""
    if isinstance(error, WindowError):
        # One table that can never succeed makes retrying the window pointless.
        return all(map(is_transient, error.failures.values()))
    if isinstance(error, ExportError):
        return error.transient
    if isinstance(error, ClickHouseError):
        return error.code is None or error.code in _TRANSIENT_CODES
    if isinstance(error, StoreAccessError | StoreFullError | ObjectTooLargeError):
        return False
    return isinstance(error, StoreError)


def collection_remedy(error: ClickHouseError, collection: str) -> str:
    """What to do about a named collection that ClickHouse cannot use; empty if it is not to blame."""
    return _COLLECTION_REMEDIES.get(error.code or 0, "").format(collection=collection)


def server_transfer_error(error: ClickHouseError, collection: str, uri: str) -> Exception:
    """What failed when ClickHouse was to write an object itself: the collection, the bucket, or the query.

    Args:
        error: what ClickHouse said.
        collection: the named collection that it was to use.
        uri: the object's address.
    """
    if remedy := collection_remedy(error, collection):
        return ClickHouseError(f"named_collection {collection}: {remedy}. {error}", error.code)
    if error.code == _S3_ERROR or (error.code == _STD_EXCEPTION and "Azure::" in str(error)):
        said = str(error).partition(", Stack trace")[0]
        message = f"{uri}: ClickHouse could not write it with the named collection {collection}: {said}"
        return (StoreAccessError if _BUCKET_REFUSES.search(said) else StoreError)(message)
    return error


def is_too_heavy(error: Exception) -> bool:
    """Whether ClickHouse ran out of what a query may take, so that reading less at a time can help."""
    return isinstance(error, ClickHouseError) and reason_of(error) in _RESOURCE_REASONS


def is_shared_shortage(error: Exception) -> bool:
    """Whether the memory of the whole server or user ran out, of which other queries have their share."""
    return reason_of(error) == "clickhouse_memory" and bool(_OTHERS_MEMORY.search(str(error)))


def stops_project(error: BaseException) -> bool:
    """Whether every window of the project would fail alike, now."""
    return meets_every_window(reason_of(error))


def meets_every_window(reason: str) -> bool:
    """Whether a failure for this reason is one that every window of the project would meet, now."""
    return reason in _STOPS_PROJECT


def user_fault(error: BaseException) -> AccessFault | None:
    """What the destination's owner has to change, if the store says so; None for everybody else's faults."""
    if isinstance(error, WindowError):
        faults = [user_fault(failure) for failure in error.failures.values()]
        return next((fault for fault in faults if fault), None)
    return error.fault if isinstance(error, StoreAccessError) else None
