"""OpenTelemetry spans become observations, traces and events."""

import json
from typing import Any

import pytest

from langfuse_ingest.event_log import Origin
from tests.ingest.deployment import PROJECT, Deployment, configure
from tests.ingest.spans import CHILD, ROOT, TRACE, attributes, export, ingest, span


def test_a_trace_of_two_spans_is_in_every_table(deployment: Deployment) -> None:
    root = span(
        ROOT, name="handle request", langfuse__user__id="u", session__id="s", langfuse__trace__tags=["b", "a"]
    )
    child = span(
        CHILD,
        ROOT,
        name="chat",
        gen_ai__operation__name="chat",
        gen_ai__request__model="gpt-5",
        gen_ai__request__temperature=0.5,
        gen_ai__usage__input_tokens=100,
        gen_ai__usage__output_tokens=20,
        gen_ai__usage__cache_read_input_tokens=30,
        gen_ai__input__messages=json.dumps([{"role": "user", "content": "hi"}]),
        gen_ai__output__messages="hello",
        custom=7,
    )

    ingest(deployment, child, root)

    [trace] = deployment.rows("traces")
    assert (trace["id"], trace["name"], trace["user_id"], trace["session_id"]) == (
        TRACE,
        "handle request",
        "u",
        "s",
    )
    assert (trace["tags"], trace["environment"]) == (["a", "b"], "prod")
    by_id = {row["id"]: row for row in deployment.rows("observations")}
    generation = by_id[CHILD]
    assert (generation["type"], generation["parent_observation_id"]) == ("GENERATION", ROOT)
    assert generation["provided_model_name"] == "gpt-5"
    assert json.loads(generation["model_parameters"]) == {"temperature": 0.5}
    assert generation["usage_details"] == {"input": 70, "input_cached_tokens": 30, "output": 20, "total": 120}
    assert (json.loads(generation["input"]), generation["output"]) == (
        [{"role": "user", "content": "hi"}],
        "hello",
    )
    events = {row["span_id"]: row for row in deployment.rows("events_full")}
    assert sorted(events) == sorted([ROOT, CHILD])  # no span that stands for the trace
    event = events[CHILD]
    assert (event["source"], event["service_name"], event["scope_name"]) == (
        "otel",
        "shop",
        "my-instrumentation",
    )
    metadata = dict(zip(event["metadata_names"], event["metadata_values"], strict=True))
    assert (metadata["attributes.custom"], metadata["scope.version"]) == ("7", "1.2")
    assert "attributes.gen_ai.input.messages" not in metadata
    assert events[ROOT]["user_id"] == "u"
    assert events[ROOT]["trace_name"] == "handle request"


def test_a_span_delivered_twice_is_one_row(deployment: Deployment) -> None:
    ingest(deployment, span(ROOT))
    ingest(deployment, span(ROOT))

    assert deployment.ids("observations") == [ROOT]
    assert deployment.ids("events_full") == [ROOT]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"langfuse__observation__type": "agent"}, "AGENT"),
        ({"openinference__span__kind": "LLM"}, "GENERATION"),
        ({"openinference__span__kind": "RETRIEVER"}, "RETRIEVER"),
        ({"gen_ai__operation__name": "embeddings"}, "EMBEDDING"),
        ({"gen_ai__tool__name": "search"}, "TOOL"),
        ({"llm__model_name": "m"}, "GENERATION"),
        ({"ai__operationId": "ai.generateText", "ai__model__id": "m"}, "SPAN"),
        ({"ai__operationId": "ai.generateText.doGenerate", "ai__model__id": "m"}, "GENERATION"),
        ({"operation__name": "ai.embed.doEmbed my-function", "ai__model__id": "m"}, "EMBEDDING"),
        ({"name": "flue.tool search"}, "TOOL"),
        ({"name": "flue.task", "model": "m"}, "AGENT"),
        ({"name": "function_tool"}, "SPAN"),  # LiveKit's, if the scope said so
        ({}, "SPAN"),
    ],
)
def test_types_of_observations(deployment: Deployment, values: dict[str, Any], kind: str) -> None:
    ingest(deployment, span(ROOT, **values))
    assert [row["type"] for row in deployment.rows("observations")] == [kind]


@pytest.mark.parametrize(
    ("language", "version", "kind"),
    [
        ("python", "3.3.0", "GENERATION"),
        ("python", "2.60.1", "GENERATION"),
        ("python", "3.4.0", "SPAN"),
        ("nodejs", "3.3.0", "SPAN"),
    ],
)
def test_old_python_sdks_call_a_generation_a_span(
    deployment: Deployment, language: str, version: str, kind: str
) -> None:
    said = {"langfuse__observation__type": "span", "langfuse__observation__model__name": "m"}
    request = export(span(ROOT, **said), scope="langfuse-sdk")
    [resource] = request["resourceSpans"]
    resource["resource"]["attributes"] += attributes(telemetry__sdk__language=language)
    resource["scopeSpans"][0]["scope"]["version"] = version
    deployment.parts.producer.accept_spans(PROJECT, request)
    deployment.work("otel-ingestion-queue")

    assert [row["type"] for row in deployment.rows("observations")] == [kind]


def test_spans_of_livekit_are_told_apart_by_their_names(deployment: Deployment) -> None:
    names = ("agent_turn", "function_tool", "llm_node", "tts_node")
    spans = [span(f"{n}" * 16, name=name) for n, name in enumerate(names)]
    failed = {**span(CHILD, ROOT, name="tts_node"), "status": {"code": 2}}
    ingest(deployment, *spans, failed, scope="livekit-agents")

    rows = {(row["name"], row["type"], row["level"]) for row in deployment.rows("observations")}
    assert rows == {
        ("agent_turn", "AGENT", "DEFAULT"),
        ("function_tool", "TOOL", "DEFAULT"),
        ("llm_node", "SPAN", "DEFAULT"),
        ("tts_node", "SPAN", "DEBUG"),
        ("tts_node", "SPAN", "ERROR"),
    }


def test_levels_and_messages_come_from_the_status(deployment: Deployment) -> None:
    failed = {**span(ROOT), "status": {"code": 2, "message": "boom"}}
    ingest(deployment, failed, span(CHILD, ROOT, langfuse__observation__level="warn"))

    levels = {row["id"]: (row["level"], row["status_message"]) for row in deployment.rows("observations")}
    assert levels == {ROOT: ("ERROR", "boom"), CHILD: ("WARNING", None)}


def test_a_completion_starts_in_utc_unless_it_says_otherwise(deployment: Deployment) -> None:
    starts = {ROOT: "2026-06-01T08:00:00.5", CHILD: '"2026-06-01T10:00:00.5+02:00"'}
    ingest(
        deployment,
        *(span(id, langfuse__observation__completion_start_time=start) for id, start in starts.items()),
    )
    times = {row["completion_start_time"] for row in deployment.rows("observations")}
    assert times == {"2026-06-01 08:00:00.500"}


def test_a_span_of_an_experiment_says_of_which_and_what_was_expected(deployment: Deployment) -> None:
    said = {
        "id": "e",
        "metadata": '{"model": {"name": "m"}, "k": [1]}',
        "item__id": "i",
        "item__version": "2026-05-01T00:00:00Z",
        "item__metadata": '{"topic": "refund"}',
        "item__root_observation_id": ROOT,
        "item__expected_output": "yes",
        "metadata__n": 7,
    }
    ingest(deployment, span(ROOT, **{f"langfuse__experiment__{name}": text for name, text in said.items()}))

    [row] = deployment.rows("events_full")
    assert {name: row[f"experiment_{name}"] for name in ("id", "metadata_names", "metadata_values")} == {
        "id": "e",
        "metadata_names": ["model.name", "k", "n"],
        "metadata_values": ["m", "[1]", "7"],
    }
    item = {name: value for name, value in row.items() if name.startswith("experiment_item_")}
    assert item == {
        "experiment_item_id": "i",
        "experiment_item_version": "2026-05-01 00:00:00.000000",
        "experiment_item_metadata_names": ["topic"],
        "experiment_item_metadata_values": ["refund"],
        "experiment_item_root_span_id": ROOT,
        "experiment_item_expected_output": "yes",
    }


def test_a_trace_has_the_version_of_its_root_and_of_what_tells_of_it(deployment: Deployment) -> None:
    ingest(deployment, span(CHILD, ROOT, langfuse__version="of a child"))
    [trace] = deployment.rows("traces")
    assert trace["version"] is None

    ingest(deployment, span(ROOT, langfuse__version="1.2"))

    [trace] = deployment.rows("traces")
    assert trace["version"] == "1.2"


def test_a_trace_has_what_its_root_has_in_its_metadata(deployment: Deployment) -> None:
    child = span(CHILD, ROOT, custom="of a child", langfuse__trace__metadata__told="by a child")
    root = span(ROOT, custom=7, input="hi", langfuse__observation__metadata__own="o")
    request = export(child, root)
    resource = request["resourceSpans"][0]["resource"]
    resource["attributes"] += attributes(langfuse__trace__metadata__team="search")
    deployment.parts.producer.accept_spans(PROJECT, request)
    deployment.work("otel-ingestion-queue")

    [trace] = deployment.rows("traces")
    metadata = trace["metadata"]
    assert json.loads(metadata["attributes"]) == {"custom": "7"}
    assert json.loads(metadata["resourceAttributes"])["service.name"] == "shop"
    assert json.loads(metadata["scope"]) == {"name": "my-instrumentation", "version": "1.2"}
    assert [metadata[name] for name in ("own", "team", "told")] == ["o", "search", "by a child"]
    teams = {row["id"]: row["metadata"].get("team") for row in deployment.rows("observations")}
    assert teams == {ROOT: "search", CHILD: "search"}


@pytest.mark.parametrize("mode", ["events_only", "dual"])
def test_an_event_has_the_metadata_of_its_trace(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    configure(monkeypatch, LANGFUSE_MIGRATION_V4_WRITE_MODE=mode)
    ingest(
        deployment, span(ROOT, langfuse__trace__metadata='{"a": {"b": 1}}', langfuse__trace__metadata__c=2)
    )

    [event] = deployment.rows("events_full")
    metadata = dict(zip(event["metadata_names"], event["metadata_values"], strict=True))
    assert (metadata["a.b"], metadata["c"]) == ("1", "2")


def test_metadata_of_the_vercel_ai_sdk_is_that_of_the_trace_but_for_what_has_a_field(
    deployment: Deployment,
) -> None:
    child = span(CHILD, ROOT, ai__telemetry__metadata__userId="u", ai__telemetry__metadata__plan="pro")
    ingest(deployment, span(ROOT, name="GET /"), child)

    [trace] = deployment.rows("traces")
    metadata = {row["id"]: row["metadata"] for row in deployment.rows("observations")}
    assert (trace["user_id"], trace["metadata"]["plan"], metadata[CHILD]["plan"]) == ("u", "pro", "pro")
    assert "userId" not in trace["metadata"].keys() | metadata[CHILD].keys()


def test_an_empty_environment_is_none(deployment: Deployment) -> None:
    ingest(deployment, span(ROOT, langfuse__environment=""))
    assert [row["environment"] for row in deployment.rows("observations")] == ["prod"]


def test_a_value_that_is_no_text_is_stored_as_json(deployment: Deployment) -> None:
    ingest(deployment, span(ROOT, user__id=["a"], langfuse__trace__tags=' [true, "b"]'))
    [trace] = deployment.rows("traces")
    assert (trace["user_id"], trace["tags"]) == ('["a"]', ["b", "true"])


def test_whole_numbers_have_no_fraction(deployment: Deployment) -> None:
    said = {"gen_ai__request__temperature": 1.0, "gen_ai__request__top_p": 0.5, "list": [2.0, 1e300]}
    ingest(deployment, span(ROOT, **said))

    [row] = deployment.rows("observations")
    assert row["model_parameters"] == '{"temperature":1,"top_p":0.5}'
    assert json.loads(row["metadata"]["attributes"])["list"] == "[2,1e+300]"


def test_an_event_says_who_sent_it(deployment: Deployment) -> None:
    origin = Origin("pk-1", "python", "4.0.0")
    deployment.parts.producer.accept_spans(PROJECT, export(span(ROOT)), origin)
    deployment.work("otel-ingestion-queue")

    [row] = deployment.rows("events_full")
    names = ("ingestion_api_key", "ingestion_sdk_name", "ingestion_sdk_version")
    assert [row[name] for name in names] == ["pk-1", "python", "4.0.0"]


def test_what_a_resource_says_of_metadata_stays_as_it_was_said(deployment: Deployment) -> None:
    request = export(span(ROOT))
    said = attributes(langfuse__trace__metadata={"area": "eu"}, langfuse__trace__metadata__team="search")
    request["resourceSpans"][0]["resource"]["attributes"] += said
    deployment.parts.producer.accept_spans(PROJECT, request)
    deployment.work("otel-ingestion-queue")

    [row] = deployment.rows("observations")
    assert [row["metadata"][name] for name in ("area", "team")] == ["eu", "search"]
    assert json.loads(row["metadata"]["resourceAttributes"])["langfuse.trace.metadata"] == {"area": "eu"}


def test_a_trace_of_langfuses_sdk_has_no_attributes_in_its_metadata(deployment: Deployment) -> None:
    ingest(deployment, span(ROOT, custom=7), scope="langfuse-sdk")
    [trace] = deployment.rows("traces")
    assert sorted(trace["metadata"]) == ["resourceAttributes", "scope"]


def test_json_objects_in_attributes_may_begin_with_blanks(deployment: Deployment) -> None:
    ingest(deployment, span(ROOT, langfuse__observation__metadata=' {"a": "b"}'))
    [row] = deployment.rows("observations")
    assert row["metadata"]["a"] == "b"


@pytest.mark.parametrize(("sent", "stored"), [("all of it", "all of it"), ([1, "b"], '[1,"b"]')])
def test_metadata_that_is_no_object_has_a_key_of_its_own(
    deployment: Deployment, sent: object, stored: str
) -> None:
    ingest(deployment, span(ROOT, langfuse__observation__metadata=sent, langfuse__trace__metadata=sent))

    for table in ("observations", "traces"):
        [row] = deployment.rows(table)
        assert row["metadata"]["metadata"] == stored
