"""Which tables an entity is written to, how its merged row looks in each, and how that is read back.

`traces`, `observations`, `scores` and `events_full` are Langfuse's; the write mode decides which of them get
traces and observations. Where a column of a sorting key changes, the row under the old key must be deleted,
so every table also says what identifies a stored row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from langfuse_ingest.events import Entity
from langfuse_ingest.records import Record, json_text
from langfuse_worker.settings import WriteMode

Row = dict[str, Any]

_DATE = 10  # characters of an ISO time
_NO_COLUMNS = ("api", "otel", "kept", "origin")  # of a record: what rows of events_full are made with
_TRACE_SPAN = "t-"  # Langfuse's id of the span that stands for a trace


@dataclass(frozen=True)
class Target:
    """A table that an entity is written to.

    Attributes:
        table: its name.
        row: the merged row as the table holds it; None if the table does not get it.
        record: a stored row as a merge takes it.
        id_column: what the entity's id is called.
        time_column: the time in its sorting key.
        key_columns: the other columns of its sorting key that can change, as the row has them.
        exact_time: whether the whole time is in the sorting key, else its date.
        id_prefix: what the id starts with in this table.
        copies: tables that a view fills with its rows. An insert that breaks off may have reached one and not
            the other, so rows under another key are looked for in all of them.
    """

    table: str
    row: Callable[[Record], Row | None]
    id_column: str
    time_column: str
    key_columns: tuple[str, ...] = ()
    exact_time: bool = False
    id_prefix: str = ""
    record: Callable[[Row], Record] = dict
    copies: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """Where its rows are."""
        return (self.table, *self.copies)

    @property
    def sorting_key(self) -> tuple[str, ...]:
        """The columns that distinguish rows for ClickHouse, in any order."""
        return ("project_id", self.time_column, *self.key_columns, self.id_column)

    def key(self, row: Row) -> tuple[str, ...]:
        """What distinguishes stored rows of one id: a row with another key is another row for ClickHouse."""
        time = row[self.time_column]
        moment = time if self.exact_time else time[:_DATE]
        return (moment, *(row[column] for column in self.key_columns))


def _row_of_record(record: Record) -> Row:
    row = {**record, "metadata": _flat(record["metadata"])}
    for name in _NO_COLUMNS:
        row.pop(name, None)
    return row


def _score_row(score: Record) -> Row:
    return {**_row_of_record(score), **score["origin"]}


def _trace_row(trace: Record) -> Row:
    return {"name": "", **_row_of_record(trace)}


_FOR_EVENTS = {
    "project_id": "project_id",
    "trace_id": "trace_id",
    "id": "span_id",
    "start_time": "start_time",
    "environment": "environment",
    "created_at": "created_at",
}
_IF_GIVEN = ("end_time", "name", "type", "version", "level", "status_message", "completion_start_time")
_IF_GIVEN += ("prompt_name", "prompt_version", "provided_model_name", "model_parameters", "input", "output")
_IF_GIVEN += ("provided_usage_details", "usage_details", "provided_cost_details", "cost_details")
_OF_A_TRACE = ("name", "user_id", "session_id", "release", "version", "tags", "public", "input", "output")


def _event_of_observation(observation: Record) -> Row:
    row = observation.get("kept", {}) | observation["origin"]
    row |= {column: observation[name] for name, column in _FOR_EVENTS.items()}
    row |= {name: observation[name] for name in _IF_GIVEN if observation.get(name) is not None}
    parent = observation.get("parent_observation_id")
    otel = observation.get("otel")
    if otel is None:
        row["parent_span_id"] = parent or _TRACE_SPAN + observation["trace_id"]
        row["source"] = "ingestion-api"
        _add_metadata(row, _flat(observation["metadata"]))
    else:
        row["parent_span_id"] = parent or ""
        row["source"] = "otel"
        row |= otel
        said_of_trace = row.pop("trace_metadata", {})
        _add_metadata(row, dict(paths({**observation["metadata"], **said_of_trace})))
    return _measured(row)


def _event_of_trace(trace: Record) -> Row | None:
    if "api" not in trace:  # only spans tell of it, and each carries what it says
        return None
    row = {
        **trace.get("kept", {}),
        **trace["origin"],
        "project_id": trace["project_id"],
        "trace_id": trace["id"],
        "span_id": _TRACE_SPAN + trace["id"],
        "start_time": trace["timestamp"],
        "type": "SPAN",
        "level": "DEFAULT",
        "is_app_root": True,
        "environment": trace["environment"],
        "created_at": trace["created_at"],
        "source": "ingestion-api",
    }
    for name in _OF_A_TRACE:
        if trace.get(name) is not None:
            row[name] = trace[name]
    row["trace_name"] = row.get("name", "")
    _add_metadata(row, _flat(trace["metadata"]))
    return _measured(row)


# Columns of events_full that the merge decides alone; the others stay as they are stored.
_MERGED = {*_FOR_EVENTS.values(), "metadata_names", "metadata_values"}
_MERGED_OF_TRACES = _MERGED.union(_OF_A_TRACE)
_MERGED_OF_OBSERVATIONS = _MERGED.union(_IF_GIVEN, ("parent_span_id", "source"))
_TEXTS = ("name", "version", "level", "status_message", "prompt_name", "provided_model_name")
_TEXTS += ("model_parameters", "input", "output", "release", "user_id", "session_id")
_NULLABLE = ("environment", "created_at", "end_time", "completion_start_time", "prompt_version", "public")


def _record_of_event(row: Row, merged: set[str]) -> Record:
    """Columns that traces and observations share; empty strings are what is absent elsewhere."""
    record: Record = {"kept": {name: row[name] for name in row if name not in merged}}
    record |= {name: row[name] for name in _TEXTS if row[name] != ""}
    record |= {name: row[name] for name in _NULLABLE if row[name] is not None}
    record["metadata"] = dict(zip(row["metadata_names"], row["metadata_values"], strict=True))
    return record


def _trace_of_event(row: Row) -> Record:
    record = _record_of_event(row, _MERGED_OF_TRACES)
    return {**record, "timestamp": row["start_time"], "tags": row["tags"], "api": True}


def _observation_of_event(row: Row) -> Record:
    record = _record_of_event(row, _MERGED_OF_OBSERVATIONS)
    record |= {name: row[name] for name in row if name.endswith("_details") and row[name]}
    record |= {name: row[name] for name in ("type", "trace_id", "start_time")}
    parent = row["parent_span_id"]
    if parent and not parent.startswith(_TRACE_SPAN):
        record["parent_observation_id"] = parent
    if row["source"] == "otel":
        record["otel"] = {}  # all of it is kept
    return record


TRACES = Target("traces", _trace_row, "id", "timestamp")
OBSERVATIONS = Target("observations", _row_of_record, "id", "start_time", ("type",))
SCORES = Target("scores", _score_row, "id", "timestamp", ("name",))
_COPIES = ("events_core",)
OBSERVATION_EVENTS = Target(
    "events_full",
    _event_of_observation,
    "span_id",
    "start_time",
    ("trace_id",),
    exact_time=True,
    record=_observation_of_event,
    copies=_COPIES,
)
TRACE_EVENTS = Target(
    "events_full",
    _event_of_trace,
    "span_id",
    "start_time",
    ("trace_id",),
    exact_time=True,
    id_prefix=_TRACE_SPAN,
    record=_trace_of_event,
    copies=_COPIES,
)


def targets(entity: Entity, mode: WriteMode) -> tuple[Target, ...]:
    """The tables that an entity is written to; the first one holds the row that merges start from."""
    if entity is Entity.SCORE:
        return (SCORES,)
    legacy, events = (TRACES, TRACE_EVENTS) if entity is Entity.TRACE else (OBSERVATIONS, OBSERVATION_EVENTS)
    return {"legacy": (legacy,), "dual": (legacy, events), "events_only": (events,)}[mode]


def _flat(metadata: dict[str, Any]) -> dict[str, str]:
    return {key: json_text(value) for key, value in metadata.items()}


def paths(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves by their dotted path; lists are leaves, null is empty."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key, "" if value is None else json_text(value)


def _add_metadata(row: Row, metadata: dict[str, str]) -> None:
    row["metadata_names"], row["metadata_values"] = list(metadata), list(metadata.values())


def _measured(row: Row) -> Row:
    row["event_bytes"] = len(orjson.dumps(row))
    return row
