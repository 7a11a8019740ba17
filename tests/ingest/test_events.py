"""What a client may send."""

from typing import Any

import pytest

from langfuse_ingest.events import EventError, parse_event
from langfuse_ingest.producer import Receipt
from langfuse_ingest.values import cost_details, environment, timestamp, usage, usage_details
from tests.ingest.deployment import Deployment


def envelope(type: str = "trace-create", body: Any = None, **fields: Any) -> dict[str, Any]:
    """An event."""
    return {
        "id": "e",
        "timestamp": "2026-06-01T12:00:00Z",
        "type": type,
        "body": body or {"id": "x"},
        **fields,
    }


def score(**body: Any) -> dict[str, Any]:
    """A score."""
    return envelope("score-create", {"id": "s", "name": "n", "traceId": "t", "value": 1, **body})


@pytest.mark.parametrize(
    ("raw", "reason", "says"),
    [
        (None, "not_an_event", "object"),
        ("text", "not_an_event", "object"),
        ({"type": "trace-create"}, "missing_field", "id"),
        (envelope("trace-delete"), "unknown_type", "'trace-delete'"),
        (envelope("dataset-run-item-create"), "unknown_type", "dataset-run-item-create"),
        (envelope(id=""), "invalid_field", "id"),
        (envelope(id="a\rb"), "invalid_field", "carriage return"),
        (envelope(id="x" * 801), "invalid_field", "800"),
        (envelope(id=7), "invalid_field", "string"),
        (envelope(timestamp="yesterday"), "invalid_field", "ISO 8601"),
        (envelope(timestamp="2026-06-01T12:00:00"), "invalid_field", "offset"),
        (envelope(timestamp="1969-12-31T23:59:59Z"), "timestamp_out_of_range", "1970"),
        (envelope(timestamp="2200-01-01T00:00:00Z"), "timestamp_out_of_range", "2149"),
        (envelope(timestamp="0001-01-01T00:00:00+14:00"), "timestamp_out_of_range", "out of range"),
        (envelope(body={"id": "x", "name": "n" * 1001}), "invalid_field", "name"),
        (envelope(body={"id": "x", "tags": ["a", 1]}), "invalid_field", "tags"),
        (envelope(body={"id": "x", "public": "true"}), "invalid_field", "public"),
        (envelope("span-create", {"traceId": "t"}), "missing_field", "body.id"),
        (envelope("span-create", {"id": "x", "level": "LOUD"}), "invalid_field", "level"),
        (envelope("generation-create", {"id": "x", "promptName": "p"}), "invalid_field", "promptVersion"),
        (envelope("generation-create", {"id": "x", "usage": {"input": -1}}), "invalid_field", "token counts"),
        (envelope("generation-create", {"id": "x", "usage": {"input": 10**400}}), "invalid_field", "token"),
        (score(value=None), "invalid_field", "value"),
        (score(value=float("nan")), "invalid_field", "finite"),
        (score(value=float("-inf")), "invalid_field", "finite"),
        (score(traceId=None), "invalid_field", "exactly one"),
        (score(sessionId="s"), "invalid_field", "exactly one"),
        (score(dataType="BOOLEAN", value=2), "invalid_field", "0 or 1"),
        (score(dataType="TEXT", value="x" * 501), "invalid_field", "500"),
        (score(source="ANNOTATION"), "invalid_field", "configId"),
    ],
)
def test_rejected_events_say_which_field_and_why(raw: Any, reason: str, says: str) -> None:
    with pytest.raises(EventError, match=says) as error:
        parse_event(raw)
    assert error.value.reason == reason


def test_unknown_keys_are_dropped_and_absent_ones_stay_absent() -> None:
    event = parse_event(envelope(body={"id": "x", "name": None, "nonsense": 1}))
    assert event.model_dump(by_alias=True, exclude_unset=True)["body"] == {"id": "x", "name": None}


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("langfuse-test", "test"),
        ("langfuse_experiment", "experiment"),
        ("langfuse", "default"),
        (".invalid!", "default"),
        ("Prod", "prod"),
        (None, "default"),
        (7, "default"),
        ("e" * 45, "e" * 40),
    ],
)
def test_environments(sent: object, name: str) -> None:
    assert environment(sent) == name


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00.000000Z"),
        ("2026-06-01T12:00:00.123456+02:00", "2026-06-01T10:00:00.123456Z"),
    ],
)
def test_times_are_utc_of_fixed_width(sent: str, stored: str) -> None:
    assert timestamp(sent) == stored


def test_usage_of_openai_is_taken_apart_without_counting_twice() -> None:
    chat = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    chat |= {
        "prompt_tokens_details": {"cached_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 60},
    }
    assert usage_details(chat) == {
        "input": 70,
        "input_cached_tokens": 30,
        "output": 0,
        "output_reasoning_tokens": 60,
        "total": 150,
    }
    responses = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    assert usage_details(responses) == {"input": 5, "output": 2, "total": 7}


def test_other_usage_keeps_what_is_a_count() -> None:
    sent = {"a": 1, "b": "12abc", "c": -1, "d": 1.5, "e": None, "f": "x", "g": True, "h": 2**70}
    assert usage_details(sent | {"i": 10**400, "j": "9" * 5000}) == {"a": 1, "b": 12}
    assert usage_details({"a": -1}) is None


@pytest.mark.parametrize(
    "odd",
    [{"completion_tokens": None}, {"prompt_tokens_details": [1]}, {"prompt_tokens_details": {"a": "x"}}],
)
def test_usage_of_openai_that_is_not_whole_keeps_its_counts(odd: dict[str, Any]) -> None:
    sent = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, **odd}
    assert usage_details(sent) == {name: count for name, count in sent.items() if isinstance(count, int)}


def test_costs_keep_what_is_an_amount() -> None:
    assert cost_details({"a": 0.5, "b": -1, "c": float("nan"), "d": "1", "e": 10**400}) == {"a": 0.5}


def test_old_usage_of_openai() -> None:
    assert usage({"promptTokens": 3, "completionTokens": 4, "totalTokens": None}) == {"input": 3, "output": 4}


def receipt_of(deployment: Deployment, *events: object) -> Receipt:
    """What becomes of a batch."""
    return deployment.accept(events)


def test_one_invalid_event_never_fails_its_neighbours(deployment: Deployment) -> None:
    receipt = receipt_of(deployment, envelope(id="a"), {"id": "bad"}, envelope(id="b", body={"id": "y"}))

    assert receipt.accepted == ["a", "b"]
    assert [(r.index, r.id, r.reason) for r in receipt.rejected] == [(1, "bad", "not_an_event")]
    deployment.work()
    assert deployment.ids("traces") == ["x", "y"]


def test_events_that_are_too_large_or_no_json_are_rejected(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = receipt_of(
        deployment,
        envelope(body={"id": "big", "input": "x" * 10_000_001}),
        envelope(body={"id": "x", "input": 2**70}),
        envelope(body={"id": "x", "input": ["\ud800", 2**70]}),
    )
    assert dict(receipt.reasons) == {"too_large": 1, "not_json": 2}
    assert "LANGFUSE_INGESTION_MAX_EVENT_BYTES" in receipt.rejected[0].message
    assert receipt.segment is None
    assert deployment.backlog == 0


def nested(levels: int) -> object:
    """An object in so many others."""
    return {"a": nested(levels - 1)} if levels else {}


def test_events_that_are_nested_too_deeply_never_fail_their_neighbours(deployment: Deployment) -> None:
    events = [envelope(id=f"e{n}", body={"id": f"{n:03}", "input": nested(n)}) for n in range(200, 260)]

    receipt = deployment.accept(events)

    assert dict(receipt.reasons) == {"not_json": len(receipt.rejected)}
    assert len(receipt.accepted) > 40
    deployment.work()
    assert [f"e{int(id)}" for id in deployment.ids("traces")] == receipt.accepted


def test_sdk_logs_are_accepted_and_lead_to_nothing(deployment: Deployment) -> None:
    receipt = receipt_of(deployment, envelope("sdk-log", {"log": "hello"}))
    assert (receipt.accepted, receipt.segment, deployment.backlog) == (["e"], None, 0)


def test_a_trace_without_an_id_is_not_lost(deployment: Deployment) -> None:
    receipt_of(deployment, envelope(id="event-id", body={"name": "n"}))
    deployment.work()
    assert deployment.ids("traces") == ["event-id"]
