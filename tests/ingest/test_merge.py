"""The rules of the merge, each by an example that Langfuse's own behaviour gives."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langfuse_ingest.event_log import EntityKey, Group
from langfuse_ingest.events import Entity
from langfuse_ingest.merge import History, deep_merge, merge, overwrite, sort_events
from langfuse_ingest.records import provided_usage

WRITTEN = "2026-06-01T00:00:00.000000Z"


def at(milliseconds: int) -> str:
    """A time of the log."""
    return f"2026-06-01T08:00:00.{milliseconds:03d}000Z"


def history(entity: Entity, *groups: list[dict[str, Any]], base: dict[str, Any] | None = None) -> History:
    """What is known of `x`: groups of events, one a segment."""
    found = [(f"segment-{n}", Group(entity, "x", events)) for n, events in enumerate(groups)]
    return History(EntityKey("p", entity, "x"), WRITTEN, groups=found, base=base)


def raw(type: str, ms: int, id: str = "e", **body: Any) -> dict[str, Any]:
    """An event of the log."""
    return {"id": id, "timestamp": at(ms), "type": type, "body": {"id": "x", **body}}


def trace(*events: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The trace that events of one batch make."""
    return merge(history(Entity.TRACE, list(events), base=base))


def observation(*events: dict[str, Any]) -> dict[str, Any]:
    """The observation that events of one batch make."""
    return merge(history(Entity.OBSERVATION, list(events)))


def names(*events: dict[str, Any]) -> list[str]:
    """Ids in the order in which events apply."""
    return [event["id"] for event in sort_events(events)]


def test_events_apply_by_millisecond_creates_before_updates() -> None:
    events = [raw("span-update", 5, "u"), raw("span-create", 5, "c"), raw("span-update", 1, "first")]
    assert names(*events) == ["first", "c", "u"]


def test_of_simultaneous_creates_the_first_wins_and_of_updates_the_last() -> None:
    assert names(*[raw("span-create", 1, id) for id in "abc"]) == ["c", "b", "a"]
    assert names(*[raw("span-update", 1, id) for id in "abc"]) == ["a", "b", "c"]


def test_microseconds_order_events_of_a_kind() -> None:
    events = [raw(f"span-{kind}", 1, f"{kind} {us}") for kind in ("update", "create") for us in (9, 5)]
    for event in events:
        event["timestamp"] = f"2026-06-01T08:00:00.00100{event['id'][-1]}Z"
    for order in (events, events[::-1]):
        assert names(*order) == ["create 5", "create 9", "update 5", "update 9"]


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ({"c": 1}, {}, {"c": 1}),
        ({"c": 1}, {"c": None}, {"c": None}),
        ({"c": 1}, {"c": ""}, {"c": ""}),
        ({"c": True}, {"c": False}, {"c": False}),
        ({"c": 1}, {"c": 0}, {"c": 0}),
        ({"c": {"a": 1}}, {"c": {}}, {"c": {"a": 1}}),
        ({"c": [1]}, {"c": []}, {"c": [1]}),
        ({}, {"c": {}}, {"c": {}}),
        ({"c": {"a": 1}}, {"c": {"b": 2}}, {"c": {"b": 2}}),
        ({"fixed": 1}, {"fixed": 2}, {"fixed": 1}),
        ({"fixed": None}, {"fixed": 2}, {"fixed": None}),
        ({}, {"fixed": 2}, {"fixed": 2}),
        ({"tags": ["B", "10"]}, {"tags": ["a", "9", "B"]}, {"tags": ["10", "9", "B", "a"]}),
        ({"metadata": {"a": {"x": 1}}}, {"metadata": {"a": {"y": 2}}}, {"metadata": {"a": {"x": 1, "y": 2}}}),
    ],
)
def test_overwriting(old: dict[str, Any], new: dict[str, Any], result: dict[str, Any]) -> None:
    overwrite(old, new, frozenset({"fixed"}))
    assert old == result


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ([1, 2, 3], [9], [9, 2, 3]),
        ([1], [8, 9], [8, 9]),
        ({"a": [{"x": 1}]}, {"a": [{"y": 2}]}, {"a": [{"x": 1, "y": 2}]}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ("text", {"a": 1}, {"a": 1}),
        ({"a": 1}, "text", "text"),
    ],
)
def test_metadata_is_merged_as_lodash_merges(old: Any, new: Any, result: Any) -> None:
    assert deep_merge(old, new) == result


def test_metadata_that_is_no_object_has_a_key_of_its_own() -> None:
    assert trace(raw("trace-create", 1, metadata="text"))["metadata"] == {"metadata": "text"}
    assert trace(raw("trace-create", 1, metadata=[1, "a"]))["metadata"] == {"metadata": '[1,"a"]'}


def test_input_and_output_are_the_last_true_values() -> None:
    row = trace(
        raw("trace-create", 1, input={"a": 1}, output="old"),
        raw("trace-create", 2, input={}, output=""),
        raw("trace-create", 3, input=None, output=0),
    )
    assert (row["input"], row["output"]) == ("{}", "old")


def test_what_no_event_says_comes_from_the_stored_row() -> None:
    base = {
        "input": "stored",
        "name": "stored",
        "created_at": "2026-01-01T00:00:00.000000Z",
        "environment": "a",
    }
    row = trace(raw("trace-create", 1, name="new", environment="b"), base=base)
    assert (row["input"], row["name"], row["environment"]) == ("stored", "new", "a")
    assert row["created_at"] == base["created_at"]


def test_an_observation_keeps_the_first_trace_that_is_named() -> None:
    row = observation(
        raw("span-create", 1), raw("span-update", 2, traceId="a"), raw("span-update", 3, traceId="b")
    )
    assert row["trace_id"] == "a"


def test_an_observation_without_a_trace_gets_one_that_stays() -> None:
    first, second = observation(raw("span-create", 1)), observation(raw("span-create", 9))
    assert first["trace_id"] == second["trace_id"] != ""


def test_null_does_not_remove_a_version_a_status_message_or_a_parent() -> None:
    given_ = {"version": "1", "statusMessage": "s", "parentObservationId": "p", "level": "ERROR"}
    nulls: dict[str, Any] = dict.fromkeys(given_)
    row = observation(raw("span-create", 1, **given_), raw("span-update", 2, **nulls))
    assert (row["version"], row["status_message"], row["parent_observation_id"]) == ("1", "s", "p")
    assert row["level"] == "DEFAULT"


def test_an_end_before_the_start_is_the_start() -> None:
    row = observation(raw("span-create", 1, startTime=at(500), endTime=at(100)))
    assert row["end_time"] == at(500)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"usage": {"input": 2, "output": 3}}, {"input": 2, "output": 3, "total": 5}),
        ({"usage": {"input": 2}}, {"input": 2, "total": 2}),
        ({"usage": {"input": 2, "output": 3, "total": 9}}, {"input": 2, "output": 3, "total": 9}),
        ({"usage": {"input": 2}, "usageDetails": {"input": 7, "audio": 1}}, {"input": 7, "audio": 1}),
        ({"usage": None, "usageDetails": None}, {}),
    ],
)
def test_provided_usage(body: dict[str, Any], usage: dict[str, int]) -> None:
    assert provided_usage(body) == usage


def test_usage_and_cost_get_totals_and_are_replaced_as_a_whole() -> None:
    row = observation(
        raw(
            "generation-create",
            1,
            usageDetails={"input": 1, "cached": 5},
            costDetails={"input": 0.5, "output": 1},
        ),
        raw("generation-update", 2, usageDetails={"input": 4, "output": 2}),
    )
    assert row["usage_details"] == {"input": 4, "output": 2, "total": 6}
    assert row["provided_cost_details"] == {"input": 0.5, "output": 1}
    assert (row["cost_details"], row["total_cost"]) == ({"input": 0.5, "output": 1, "total": 1.5}, 1.5)


def test_costs_beyond_the_column_are_clamped() -> None:
    row = observation(raw("generation-create", 1, costDetails={"total": 1e9}))
    assert row["total_cost"] == 999_999.999999


@pytest.mark.parametrize(
    ("value", "data_type", "stored"),
    [
        (1, "BOOLEAN", (1, "True", "", "BOOLEAN")),
        (0, "BOOLEAN", (0, "False", "", "BOOLEAN")),
        (0.5, None, (0.5, None, "", "NUMERIC")),
        ("good", None, (0, "good", "", "CATEGORICAL")),
        ("good", "TEXT", (0, "good", "", "TEXT")),
        ("better answer", "CORRECTION", (0, None, "better answer", "CORRECTION")),
    ],
)
def test_values_of_scores(value: Any, data_type: str | None, stored: tuple[Any, ...]) -> None:
    body = {"traceId": "t", "name": "n", "value": value, "dataType": data_type}
    row = merge(history(Entity.SCORE, [raw("score-create", 1, **body)]))
    assert (row["value"], row["string_value"], row["long_string_value"], row["data_type"]) == stored
    assert row["name"] == ("output" if data_type == "CORRECTION" else "n")


_BODY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.none() | st.sampled_from(["a", ""]),
        "userId": st.none() | st.sampled_from(["u", "v"]),
        "tags": st.lists(st.sampled_from(["x", "y", "z"])),
        "metadata": st.dictionaries(
            st.sampled_from("kl"),
            st.integers(0, 3) | st.dictionaries(st.sampled_from("mn"), st.integers(0, 3)),
        ),
        "input": st.sampled_from(["", "in", 0, {}]),
        "public": st.booleans(),
        "timestamp": st.sampled_from([at(1), at(2)]),
        "environment": st.sampled_from(["a", "b"]),
    },
)


@given(st.lists(_BODY, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_neither_batches_nor_their_order_nor_repetition_matter(
    bodies: list[dict[str, Any]], chance: Any
) -> None:
    events = [raw("trace-create", n * 10, f"e{n}", **body) for n, body in enumerate(bodies)]
    expected = merge(history(Entity.TRACE, events))

    groups = [[chance.choice(events)] for _ in range(3)] + [[event] for event in events]
    chance.shuffle(groups)

    assert merge(history(Entity.TRACE, *groups)) == expected
