"""Spans of calls: the model, its parameters, what it used."""

import json
from typing import Any

import pytest

from langfuse_ingest.otel.parameters import parameters_of
from langfuse_ingest.otel.usage import usage_of
from tests.ingest.deployment import Deployment
from tests.ingest.spans import CHILD, ROOT, ingest, span


def test_a_call_by_genkit_has_the_name_of_its_action_as_its_model(deployment: Deployment) -> None:
    def action(subtype: str, name: str) -> list[dict[str, Any]]:
        said = {"genkit:name": name, "genkit:metadata:subtype": subtype, "genkit:input": '{"a": 1}'}
        return [{"key": key, "value": {"stringValue": text}} for key, text in said.items()]

    model = {**span(CHILD, ROOT), "attributes": action("model", "googleai/gemini")}
    embedder = {**span("e" * 16, ROOT), "attributes": action("embedder", "googleai/embedding")}
    ingest(deployment, {**span(ROOT), "attributes": action("flow", "answer")}, model, embedder)

    rows = {row["id"]: row for row in deployment.rows("observations")}
    assert [rows[id]["type"] for id in (ROOT, CHILD, "e" * 16)] == ["SPAN", "GENERATION", "EMBEDDING"]
    assert [rows[id]["provided_model_name"] for id in (ROOT, CHILD)] == [None, "googleai/gemini"]


def test_a_call_by_genkit_has_its_usage_and_parameters(deployment: Deployment) -> None:
    usage = {"inputTokens": 100, "outputTokens": 20, "thoughtsTokens": 50, "cachedContentTokens": 30}
    said = {
        "genkit:name": "googleai/gemini",
        "genkit:input": {"messages": [], "config": {"temperature": 0.5, "apiKey": "secret"}},
        "genkit:output": {"message": {}, "usage": {**usage, "totalTokens": 170, "inputCharacters": 9}},
    }

    def action(id: str, subtype: str) -> dict[str, Any]:
        values = {name: of if isinstance(of, str) else json.dumps(of) for name, of in said.items()}
        return span(id, ROOT if id == CHILD else None, **values, **{"genkit:metadata:subtype": subtype})

    ingest(deployment, action(ROOT, "util"), action(CHILD, "model"), scope="genkit-tracer")

    rows = {row["id"]: row for row in deployment.rows("observations")}
    assert json.loads(rows[CHILD]["model_parameters"]) == {"temperature": 0.5}
    assert rows[CHILD]["usage_details"] == {
        "input": 70,
        "input_cached_tokens": 30,
        "output": 20,
        "output_reasoning_tokens": 50,
        "total": 170,
    }
    assert (rows[ROOT]["model_parameters"], rows[ROOT]["usage_details"]) == (None, {})


def test_thoughts_that_a_model_of_genkit_counts_as_output_are_taken_off() -> None:
    usage = {"inputTokens": 10, "outputTokens": 8, "thoughtsTokens": 5, "totalTokens": 18}
    said = {"genkit:metadata:subtype": "model", "genkit:output": json.dumps({"usage": usage})}
    assert usage_of(said) == {"input": 10, "output": 3, "output_reasoning_tokens": 5, "total": 18}


def test_a_call_by_the_vercel_ai_sdk(deployment: Deployment) -> None:
    model = {"ai__model__id": "gpt-5", "ai__telemetry__metadata__userId": "u"}
    outer = span(
        ROOT,
        name="ai.generateText",
        ai__operationId="ai.generateText",
        ai__telemetry__functionId="answer",
        ai__prompt='{"prompt": "hi"}',
        ai__response__text="hello",
        ai__usage__promptTokens=100,
        **model,
    )
    lifetimes = {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 3}
    created = {"cache_creation_input_tokens": 10, "cache_creation": lifetimes}
    inner = span(
        CHILD,
        ROOT,
        name="ai.generateText.doGenerate",
        ai__operationId="ai.generateText.doGenerate",
        ai__prompt__messages='[{"role": "user", "content": "hi"}]',
        ai__response__text="hello",
        ai__response__msToFirstChunk=250.2,
        ai__response__providerMetadata=json.dumps({"anthropic": {"usage": created}}),
        ai__settings__maxRetries=2,
        gen_ai__response__finish_reasons=["stop"],
        gen_ai__system="openai.chat",
        gen_ai__request__temperature=1.0,
        gen_ai__request__max_tokens=50,
        ai__usage__cachedInputTokens=30,
        ai__telemetry__metadata__langfusePrompt='{"name": "greeting", "version": 3}',
        gen_ai__request__model="gpt-5",
        gen_ai__usage__input_tokens=100,
        gen_ai__usage__output_tokens=20,
        **model,
    )
    ingest(deployment, outer, inner, scope="ai")

    rows = {row["id"]: row for row in deployment.rows("observations")}
    assert (rows[ROOT]["type"], rows[ROOT]["name"]) == ("SPAN", "answer:ai.generateText")
    assert (json.loads(rows[ROOT]["input"]), rows[ROOT]["output"]) == ({"prompt": "hi"}, "hello")
    assert rows[ROOT]["usage_details"] == {}  # or every token would count twice
    call = rows[CHILD]
    assert (call["type"], call["prompt_name"], call["prompt_version"]) == ("GENERATION", "greeting", 3)
    assert (json.loads(call["input"])[0]["content"], call["output"]) == ("hi", "hello")
    assert call["usage_details"] == {
        "input": 60,
        "input_cached_tokens": 30,
        "input_cache_creation": 1,
        "input_cache_creation_5m": 6,
        "input_cache_creation_1h": 3,
        "output": 20,
        "total": 120,
    }
    assert json.loads(call["model_parameters"]) == {
        "maxTokens": "50",
        "temperature": "1",
        "finishReason": "stop",
        "system": "openai.chat",
        "maxRetries": "2",
    }
    assert call["completion_start_time"] == "2026-06-01 08:00:00.251"
    assert not any(name in call["metadata"]["attributes"] for name in ("ai.prompt", "ai.response.text"))


@pytest.mark.parametrize("name", ["reasoning_tokens", "thoughts_tokens", "details.reasoning_tokens"])
def test_tokens_of_reasoning_are_not_counted_as_output_once_more(name: str) -> None:
    usage = usage_of({"gen_ai.usage.output_tokens": 8, f"gen_ai.usage.{name}": 5})
    assert usage == {"output": 3, "output_reasoning_tokens": 5}


def test_usage_counts_no_token_twice() -> None:
    usage = usage_of(
        {
            "llm.token_count.prompt": 10,
            "llm.token_count.completion": 8,
            "llm.token_count.prompt_details.cache_read": 4,
            "llm.token_count.completion_details.reasoning": 5,
        }
    )
    assert usage == {"input": 6, "input_cached_tokens": 4, "output": 3, "output_reasoning_tokens": 5}


def test_tokens_that_googles_agents_take_from_a_cache_are_no_input() -> None:
    response = json.dumps({"usage_metadata": {"cached_content_token_count": 30}})
    usage = usage_of({"gen_ai.usage.input_tokens": 100, "gcp.vertex.agent.llm_response": response})
    assert usage == {"input": 70, "input_cached_tokens": 30}


@pytest.mark.parametrize(
    ("said", "scope", "parameters"),
    [
        (
            {
                "langfuse.observation.model.parameters": '{"temperature": 0.2, "seed": 7}',
                "gen_ai.request.temperature": 0.5,
                "ai.response.providerMetadata": '{"openai": {"serviceTier": "flex"}}',
                "gen_ai.request.service_tier": "auto",
            },
            "ai",
            {"temperature": 0.2, "seed": 7, "service_tier": "flex"},
        ),
        (
            {
                "genkit:metadata:subtype": "model",
                "genkit:input": "{}",
                "genkit:output": '{"request": {"config": {"topK": 1, "apiKey": "secret"}}}',
            },
            "genkit-tracer",
            {"topK": 1},
        ),
        ({"llm.invocation_parameters": '{"top_p": 1}', "gen_ai.request.top_k": 2}, "other", {"top_p": 1}),
        (
            {"model_config": '{"stop": ["a"], "stream": true, "n": 1, "top_p": 0.5, "seed": null}'},
            "other",
            {"stop": '["a"]', "stream": "true", "n": 1, "top_p": 0.5, "seed": "null"},
        ),
        ({"gen_ai.request.top_k": 2, "gen_ai.request.model": "m"}, "other", {"top_k": 2}),
    ],
)
def test_parameters_of_a_call(said: dict[str, Any], scope: str, parameters: dict[str, Any]) -> None:
    assert parameters_of(said, scope) == parameters
