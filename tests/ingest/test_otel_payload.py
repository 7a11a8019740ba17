"""Input and output of spans, wherever frameworks put them."""

import json
import tracemalloc
from typing import Any

import pytest

from langfuse_ingest.otel.payload import payload_of
from tests.ingest.deployment import Deployment
from tests.ingest.spans import CHILD, ROOT, attributes, ingest, span


def test_messages_in_events_and_spread_attributes_are_input_and_output(deployment: Deployment) -> None:
    messages = [
        {"name": "gen_ai.user.message", "attributes": attributes(content="hi")},
        {"name": "gen_ai.choice", "attributes": attributes(content="hello")},
    ]
    spread = span(
        CHILD,
        ROOT,
        gen_ai__prompt__0__role="user",
        gen_ai__prompt__0__content="hi",
        gen_ai__completion__0__content="yo",
    )
    ingest(deployment, {**span(ROOT), "events": messages}, spread)

    rows = {row["id"]: row for row in deployment.rows("observations")}
    assert json.loads(rows[ROOT]["input"]) == [{"role": "user", "content": "hi"}]
    assert json.loads(rows[ROOT]["output"]) == {"content": "hello"}
    assert json.loads(rows[CHILD]["input"]) == [{"role": "user", "content": "hi"}]
    assert json.loads(rows[CHILD]["output"]) == [{"content": "yo"}]


@pytest.mark.parametrize(
    ("span", "payload"),
    [
        ({"ai.prompt": "hi", "ai.response.text": "yo"}, {"input": "hi", "output": "yo"}),
        ({"ai.prompt.messages": "[1]", "ai.response.object": "{}"}, {"input": "[1]", "output": "{}"}),
        (
            {"ai.prompt": "hi", "ai.response.text": "", "ai.response.toolCalls": "[1]"},
            {"input": "hi", "output": {"role": "assistant", "content": "", "tool_calls": [1]}},
        ),
        ({"ai.prompt": "hi", "ai.result.toolCalls": "[1]"}, {"input": "hi", "output": "[1]"}),
        (
            {
                "gcp.vertex.agent.llm_request": "{}",
                "gcp.vertex.agent.tool_call_args": '{"a": 1}',
                "gcp.vertex.agent.llm_response": "{}",
                "gcp.vertex.agent.tool_response": "done",
            },
            {"input": '{"a": 1}', "output": "done"},
        ),
        ({"ai.prompt": "hi", "gen_ai.output.messages": "[1]"}, {"input": "hi", "output": "[1]"}),
        ({"prompt": "hi", "all_messages_events": "[1]"}, {"input": "hi", "output": "[1]"}),
        ({"lk.chat_ctx": "hi", "lk.function_tool.output": "yo"}, {"input": "hi", "output": "yo"}),
        ({"flue.tool.arguments": '{"city": "Berlin"}'}, {"input": '{"city": "Berlin"}'}),
        ({"flue.operation.result": "sunny"}, {"output": "sunny"}),
        ({"langfuse.trace.input": "of the trace", "input.value": "own"}, {"input": "own"}),
        (
            {"gen_ai.input.messages": "[1]", "gen_ai.system_instructions": '[{"content": "a"}, "b"]'},
            {"input": [{"role": "system", "content": "a\nb"}, 1]},
        ),
        (
            {
                "gen_ai.input.messages": "[1]",
                "gen_ai.system_instructions": '[{"content": "a"}, {"parts": [{"content": "b"}, {"n": 1}]}]',
            },
            {"input": [{"role": "system", "content": 'a\nb\n{"n":1}'}, 1]},
        ),
        (
            {"gen_ai.input.messages": "[1]", "gen_ai.system_instructions": '[{"parts": []}]'},
            {"input": [{"role": "system", "parts": []}, 1]},
        ),
        (
            {"gen_ai.input.messages": '[{"role": "system"}]', "gen_ai.system_instructions": "be kind"},
            {"input": '[{"role": "system"}]'},
        ),
        (
            {"gen_ai.input.messages": '[1, {"role": "system"}]', "gen_ai.system_instructions": "be kind"},
            {"input": '[1, {"role": "system"}]'},
        ),
        (
            {
                "pydantic_ai.all_messages": "[1]",
                "gen_ai.system_instructions": "be kind",
                "final_result": "yo",
            },
            {"input": [{"role": "system", "content": "be kind"}, 1], "output": "yo"},
        ),
        (
            {"events": '[{"event.name": "gen_ai.user.message"}, {"event.name": "gen_ai.choice", "a": 1}]'},
            {
                "input": [{"event.name": "gen_ai.user.message"}],
                "output": {"event.name": "gen_ai.choice", "a": 1},
            },
        ),
        ({"events": "none", "input": "hi"}, {"input": "hi"}),
        ({"gen_ai.prompt": '{"a": 1}', "gen_ai.completion": "yo"}, {"input": '{"a": 1}', "output": "yo"}),
        (
            {
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.tool_calls.0.name": "search",
                "gen_ai.completion.0.tool_calls.2.name": "answer",
            },
            {"output": [{"role": "assistant", "tool_calls": [{"name": "search"}, {"name": "answer"}]}]},
        ),
        (
            {"llm.input_messages.0.message.content": "hi", "llm.input_messages.1.message.content": "you"},
            {"input": [{"message": {"content": "hi"}}, {"message": {"content": "you"}}]},
        ),
        ({"gen_ai.prompt.a": 1, "gen_ai.prompt.a.b": 2, "gen_ai.prompt..c": 3}, {"input": {"a": 1}}),
        (
            {
                "genkit:input": '{"messages": [1], "config": {}}',
                "genkit:output": '{"message": {"role": "model"}, "usage": {}}',
            },
            {"input": [1], "output": {"role": "model"}},
        ),
        (
            {"genkit:input": '{"city": "Berlin"}', "genkit:output": "42"},
            {"input": '{"city": "Berlin"}', "output": "42"},
        ),
    ],
)
def test_input_and_output_are_found_where_frameworks_put_them(
    span: dict[str, Any], payload: dict[str, Any]
) -> None:
    assert payload_of(span, []) == payload


def test_what_is_spread_over_too_many_names_takes_little_memory() -> None:
    deep = ".a" * 100
    span = {f"gen_ai.prompt.{n}{deep}": n for n in range(12_000)}

    tracemalloc.start()
    payload = payload_of(span, [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 100_000_000
    assert len(payload["input"]) == 10_000
    said: Any = {".".join("a" * 86): 7}
    for _ in range(14):
        said = {"a": said}
    assert payload["input"][7] == said


def test_messages_may_be_in_an_event_of_the_span() -> None:
    content = attributes(gen_ai__input__messages="[1]", gen_ai__output__messages="[2]")
    event = {"name": "gen_ai.client.inference.operation.details", "attributes": content}
    assert payload_of({}, [event]) == {"input": "[1]", "output": "[2]"}


def test_a_prompt_and_its_completion_may_be_events_of_the_span() -> None:
    events = [
        {"name": "gen_ai.content.prompt", "attributes": attributes(gen_ai__prompt='[{"role": "user"}]')},
        {"name": "gen_ai.content.completion", "attributes": attributes(gen_ai__completion="yo")},
    ]
    assert payload_of({}, events) == {"input": '[{"role": "user"}]', "output": "yo"}


def test_what_is_input_is_stored_as_it_was_sent_and_is_no_metadata(deployment: Deployment) -> None:
    sent = '{"price": 1.10, "n": 123456789012345678901234567890}'
    ingest(deployment, span(ROOT, langfuse__observation__input=sent, gen_ai__prompt="of OpenRouter"))

    [row] = deployment.rows("observations")
    assert row["input"] == sent
    assert json.loads(row["metadata"]["attributes"]) == {}
