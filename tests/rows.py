"""Rows of the Langfuse tables for tests, and how to insert them."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
Execute = Callable[[str], object]

PROJECT = "p1"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def clock(moment: datetime) -> str:
    """A DateTime64 value for `insert`, whatever the server's time zone."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def trace(id: str, at: datetime = NOON, *, version: int = 1, deleted: bool = False, **columns: Any) -> Row:
    """A version of a trace; larger `version` is newer."""
    return _versioned(id, "timestamp", at, version, deleted, {"name": "chat", **columns})


def observation(
    id: str, at: datetime = NOON, *, version: int = 1, deleted: bool = False, **columns: Any
) -> Row:
    """A version of an observation."""
    columns = {"trace_id": "t", "type": "GENERATION", "name": "llm", **columns}
    return _versioned(id, "start_time", at, version, deleted, columns)


def score(id: str, at: datetime = NOON, *, version: int = 1, deleted: bool = False, **columns: Any) -> Row:
    """A version of a score."""
    columns = {"name": "helpful", "value": 1.0, "source": "API", "data_type": "NUMERIC", **columns}
    return _versioned(id, "timestamp", at, version, deleted, columns)


def event(id: str, at: datetime = NOON, *, version: int = 1, deleted: bool = False, **columns: Any) -> Row:
    """A version of an event (a span of events_full)."""
    row = _versioned(id, "start_time", at, version, deleted, {"trace_id": "t", "type": "SPAN", **columns})
    row["span_id"] = row.pop("id")
    return row


def run_item(id: str, at: datetime = NOON, *, version: int = 1, deleted: bool = False, **columns: Any) -> Row:
    """A version of a dataset run's item; a newer one keeps `created_at`, as `at` says."""
    columns = {"dataset_id": "d", "dataset_run_id": "run", "dataset_item_id": "item", **columns}
    return _versioned(id, "created_at", at, version, deleted, {"trace_id": "t", **columns})


def insert(execute: Execute, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows into a ClickHouse table; each call makes a part of its own, as production does."""
    lines = "\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    execute(
        f"INSERT INTO {table} SETTINGS date_time_input_format = 'best_effort' FORMAT JSONEachRow\n{lines}"
    )


def _versioned(
    id: str, time_column: str, at: datetime, version: int, deleted: bool, columns: Mapping[str, Any]
) -> Row:
    written = clock(datetime.fromtimestamp(1_780_000_000 + version, UTC))
    return {
        "id": id,
        "project_id": PROJECT,
        "created_at": written,
        "updated_at": written,
        "event_ts": written,
        "is_deleted": int(deleted),
        time_column: clock(at),
        **columns,
    }
