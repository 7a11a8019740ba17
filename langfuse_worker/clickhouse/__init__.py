"""ClickHouse over HTTP or embedded, behind one small interface with per-query limits and streamed bytes."""

from langfuse_worker.clickhouse.client import (
    ACCESS_DENIED,
    UNKNOWN_TABLE,
    ClickHouse,
    ClickHouseError,
    Parameter,
    Query,
    Scalar,
    shown_url,
)
from langfuse_worker.clickhouse.limits import QueryComment, QueryLimits
from langfuse_worker.clickhouse.open import connect, connect_for_ingestion
from langfuse_worker.clickhouse.profiles import JSON_LINES

__all__ = [
    "ACCESS_DENIED",
    "JSON_LINES",
    "UNKNOWN_TABLE",
    "ClickHouse",
    "ClickHouseError",
    "Parameter",
    "Query",
    "QueryComment",
    "QueryLimits",
    "Scalar",
    "connect",
    "connect_for_ingestion",
    "shown_url",
]
