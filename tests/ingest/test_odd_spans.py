"""Spans and exports that are odd, and those that are none."""

import json
from typing import Any

import pytest

from langfuse_ingest.jobs import ingest_job
from langfuse_ingest.runtime import build_runtime
from langfuse_worker.settings import settings
from tests.ingest.deployment import PROJECT, Deployment, configure
from tests.ingest.spans import CHILD, ROOT, TRACE, attributes, export, ingest, span, value

_DEEP = '{"a":' * 1000 + "1" + "}" * 1000
_USAGE = {"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 10}


def test_bytes_in_any_spelling_are_ids(deployment: Deployment) -> None:
    data = list(bytes.fromhex(ROOT))
    odd = {
        **span(ROOT),
        "spanId": {"type": "Buffer", "data": data},
        "traceId": {"data": list(bytes.fromhex(TRACE))},
    }
    deployment.parts.producer.accept_spans(PROJECT, export(odd))
    deployment.work("otel-ingestion-queue")

    [row] = deployment.rows("observations")
    assert (row["id"], row["trace_id"]) == (ROOT, TRACE)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ([], "not_otlp"),
        ({"resourceSpans": [{"scopeSpans": "x"}]}, "not_otlp"),
        (export({**span(ROOT), "spanId": ""}), "invalid_span_id"),
        (export({**span(ROOT), "traceId": 3.5}), "invalid_span_id"),
        (export({**span(ROOT), "traceId": 2**60}), "invalid_span_id"),
        (export({**span(ROOT), "attributes": {"a": 1}}), "not_otlp"),
        (export({**span(ROOT), "kind": 2**70}), "not_json"),
    ],
)
def test_exports_that_are_none_are_rejected_as_a_whole(
    deployment: Deployment, request_: Any, reason: str
) -> None:
    receipt = deployment.parts.producer.accept_spans(PROJECT, request_)
    assert [r.reason for r in receipt.rejected] == [reason]
    assert (receipt.accepted, receipt.segment, deployment.backlog) == ([], None, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "boom"},
        {"startTimeUnixNano": {"low": None, "high": 1}},
        {"startTimeUnixNano": str(2**63 - 1), "endTimeUnixNano": str(2**63 - 1)},  # the year 2262
        {"startTimeUnixNano": 1e30, "endTimeUnixNano": 1e30},
        {"startTimeUnixNano": str(253_402_300_799 * 10**9), "endTimeUnixNano": 2.5e20},  # the year 9999
        {"events": [{"name": "gen_ai.choice", "attributes": [7]}]},
        {"attributes": [{"key": None, "value": value("x")}, {"key": "a", "value": None}]},
        {"attributes": [{"key": "a", "value": {"arrayValue": {"values": None}}}]},
        {"attributes": [{"key": "a", "value": {"arrayValue": [7]}}]},
        {"attributes": attributes(a=2**70, gen_ai__request__b=[2**70], langfuse__trace__metadata__c=2**70)},
        {"attributes": attributes(langfuse__observation__usage_details=json.dumps(_USAGE))},
        {"attributes": attributes(langfuse__observation__usage_details='{"a": "' + "9" * 5000 + '"}')},
        {"attributes": attributes(langfuse__observation__completion_start_time="0001-01-01T00:00:00+14:00")},
        {"attributes": attributes(langfuse__observation__completion_start_time="0500-01-01T00:00:00Z")},
        {"attributes": attributes(**{f"gen_ai__prompt__{'9' * 5000}__content": "x"})},
        {"attributes": attributes(langfuse__observation__input=_DEEP)},
        {"attributes": attributes(langfuse__observation__metadata=_DEEP, langfuse__trace__metadata=_DEEP)},
        {"attributes": attributes(langfuse__experiment__metadata=_DEEP)},
        {"attributes": attributes(langfuse__trace__tags="[" * 500 + "]" * 500)},
        {"attributes": attributes(langfuse__observation__model__parameters=_DEEP)},
        {
            "attributes": attributes(
                langfuse__observation__type="generation",
                langfuse__prompt__name="p",
                langfuse__prompt__version="9" * 5000,
            )
        },
    ],
)
def test_a_span_with_odd_values_is_stored_and_so_are_its_neighbours(
    deployment: Deployment, odd: dict[str, Any]
) -> None:
    ingest(deployment, {**span(ROOT), **odd}, span(CHILD, ROOT))

    assert deployment.ids("observations") == [CHILD, ROOT]
    assert (deployment.letters, deployment.backlog) == ([], 0)


def test_objects_and_lists_may_be_null(deployment: Deployment) -> None:
    request = export({**span(ROOT), "attributes": None, "events": None, "status": None})
    [resource] = request["resourceSpans"]
    resource["resource"] = resource["scopeSpans"][0]["scope"] = None
    resource["scopeSpans"].append({"spans": None})
    request["resourceSpans"].append({"scopeSpans": None})

    receipt = deployment.parts.producer.accept_spans(PROJECT, request)
    deployment.work()

    assert (receipt.rejected, deployment.ids("observations")) == ([], [ROOT])


def test_a_span_without_times_is_the_same_row_whenever_it_is_ingested(deployment: Deployment) -> None:
    timeless = {**span(ROOT), "startTimeUnixNano": None, "endTimeUnixNano": None}
    ingest(deployment, timeless)
    [before] = deployment.rows("observations")
    [segment] = deployment.parts.event_log.keys_of(PROJECT)

    build_runtime(settings()).ingestion.ingest([ingest_job(segment)])

    assert deployment.rows("observations") == [before]


def test_an_export_with_too_large_a_span_is_rejected(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, LANGFUSE_INGESTION_MAX_EVENT_BYTES="20000")
    spans = [span(f"{n:016x}", input="x" * (9_000 if n else 20_000)) for n in range(4)]
    accept = deployment.parts.producer.accept_spans

    rejected, accepted = accept(PROJECT, export(*spans)), accept(PROJECT, export(*spans[1:]))

    [rejection] = rejected.rejected
    assert rejection.reason == "too_large"
    assert "span 0000000000000000: 20" in rejection.message
    assert (rejected.accepted, len(accepted.accepted)) == ([], 3)
    deployment.work()
    assert len(deployment.ids("observations")) == 3
