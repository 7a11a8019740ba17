"""Random rows of the Langfuse tables, for hypothesis."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.export.http.exporting import HOUR
from tests.rows import Row, clock, event, observation, run_item, score, trace

MAKERS = {"traces": trace, "observations": observation, "scores": score, "events": event}
MAKERS |= {"dataset_run_items": run_item}
MILLISECOND = timedelta(milliseconds=1)
# Around both bounds of the window, within its day and across midnight.
MOMENTS = [HOUR.start - MILLISECOND, HOUR.start, HOUR.start + MILLISECOND, HOUR.end - MILLISECOND, HOUR.end]
MOMENTS += [HOUR.start - timedelta(hours=5), HOUR.end + timedelta(hours=5), HOUR.end - timedelta(days=1)]

_HOSTILE = [
    "",
    "\\u0041",
    '\\u0022hi\\"',
    "\u2028\x85\x0b",
    "a,b\r\nc\"d''",
    "\x00\x01\x1f",
    "{}",
    "NULL",
    "\\N",
]
_HOSTILE += [
    "😀\ufeff",
    "'; DROP TABLE traces; --",
    "%s {x:String}",
    "\n",
    '"',
    '""',
    "\\",
    "1e999",
    "ÿ" * 300,
]
TEXT = st.one_of(st.sampled_from(_HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
COUNTS = st.dictionaries(TEXT, st.integers(0, 2**64 - 1), max_size=3)
COSTS = st.dictionaries(
    st.sampled_from(["input", "output", "total"]),
    st.decimals(-999999, 999999, places=12, allow_nan=False).map(str),
    max_size=3,
)
LATER = st.sampled_from([None, *(HOUR.start + timedelta(seconds=n / 1000) for n in (1, 1500, 987654))])


def _moment(at: datetime | None) -> str | None:
    return clock(at) if at else None


COLUMNS: dict[str, Any] = {
    "traces": st.fixed_dictionaries(
        {"name": TEXT, "input": st.none() | TEXT, "metadata": st.dictionaries(TEXT, TEXT, max_size=3)},
        optional={"tags": st.lists(TEXT, max_size=3), "public": st.booleans(), "user_id": TEXT},
    ),
    "observations": st.fixed_dictionaries(
        {"name": TEXT, "output": st.none() | TEXT, "usage_details": COUNTS, "cost_details": COSTS},
        optional={
            "end_time": LATER.map(_moment),
            "completion_start_time": LATER.map(_moment),
            "tool_definitions": st.dictionaries(TEXT, TEXT, max_size=2),
            "total_cost": st.decimals(0, 99999, places=12).map(str),
            "prompt_version": st.integers(0, 65535),
        },
    ),
    "scores": st.fixed_dictionaries(
        {"comment": st.none() | TEXT, "string_value": st.none() | TEXT},
        optional={
            "value": st.floats(width=64, allow_nan=False, allow_infinity=False),
            "data_type": st.sampled_from(["NUMERIC", "TEXT", "CORRECTION"]),
        },
    ),
    "events": st.fixed_dictionaries(
        {"name": TEXT, "input": TEXT, "cost_details": COSTS, "usage_details": COUNTS},
        optional={
            "metadata_names": st.lists(TEXT, max_size=3),
            "metadata_values": st.lists(TEXT, max_size=3),
            "parent_span_id": st.sampled_from(["", "root"]),
            "trace_name": TEXT,
            "end_time": LATER.map(_moment),
        },
    ),
    "dataset_run_items": st.fixed_dictionaries(
        {"dataset_item_input": st.none() | TEXT, "dataset_item_metadata": st.dictionaries(TEXT, TEXT)},
        optional={"error": st.none() | TEXT, "dataset_run_id": st.sampled_from(["run", "another run"])},
    ),
}


@st.composite
def versions(draw: st.DrawFn, table: str) -> Row:
    """One version of one of a few rows. Versions of a row may differ in everything, deletion included."""
    id = draw(st.sampled_from(["a", "ö'\\"]))
    version = draw(st.integers(1, 10**6))
    deleted = draw(st.integers(0, 3)) == 0
    return MAKERS[table](
        id, draw(st.sampled_from(MOMENTS)), version=version, deleted=deleted, **draw(COLUMNS[table])
    )
