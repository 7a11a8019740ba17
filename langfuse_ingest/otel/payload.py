"""Input and output of a span, wherever its instrumentation has put them."""

from typing import Any

import orjson

from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import attributes, from_json

_MAX_SLOTS = 10_001
_MAX_DIGITS = 9  # of an index
_MESSAGES = (
    "gen_ai.system.message",
    "gen_ai.user.message",
    "gen_ai.assistant.message",
    "gen_ai.tool.message",
)


def payload_of(span: dict[str, Any], events: list[Any]) -> dict[str, Any]:
    """Input and output as far as they are there."""
    return (
        _named(span, fields.PAYLOADS_BEFORE_EVENTS)
        or _from_events(events)
        or _named(span, fields.PAYLOADS)
        or _spread(span)
        or _named(span, fields.PAYLOADS_AFTER_SPREAD)
    )


def _named(span: dict[str, Any], payloads: tuple[fields.Payload, ...]) -> dict[str, Any]:
    for inputs, outputs in payloads:
        both = {"input": _first(span, inputs), "output": _first(span, outputs)}
        found = {kind: value for kind, value in both.items() if value is not None}
        if not found:
            continue
        if fields.MESSAGES in inputs:
            found["input"] = _with_instructions(span, found.get("input"))
        if fields.AI_TEXT in outputs and {fields.AI_TEXT, fields.AI_TOOL_CALLS} <= span.keys():
            calls = _decoded(span[fields.AI_TOOL_CALLS])
            found["output"] = {"role": "assistant", "content": span[fields.AI_TEXT], "tool_calls": calls}
        return found
    return {}


def _first(span: dict[str, Any], names: tuple[str, ...]) -> Any:
    values = [span[name] for name in names if span.get(name) not in (None, "")]
    return _decoded(next((value for value in values if value != "{}"), values[0] if values else None))


def _with_instructions(span: dict[str, Any], messages: Any) -> Any:
    """The messages with the system's instructions before them, unless they begin with such."""
    given = _decoded(span.get(fields.SYSTEM_INSTRUCTIONS))
    parts = [part for part in (given if isinstance(given, list) else [given]) if part]
    messages = [] if messages is None else messages
    begins = messages[0] if isinstance(messages, list) and messages else None
    is_there = isinstance(begins, dict) and begins.get("role") == "system"
    if not parts or is_there or not isinstance(messages, list):
        return messages
    if all(isinstance(part, dict) and "parts" in part for part in parts):
        return [*({"role": "system", **part} for part in parts), *messages]
    texts = [part.get("content") if isinstance(part, dict) else part for part in parts]
    content = "\n".join(text if isinstance(text, str) else orjson.dumps(text).decode() for text in texts)
    return [{"role": "system", "content": content}, *messages]


def _spread(span: dict[str, Any]) -> dict[str, Any]:
    for pair in fields.SPREAD_PAYLOADS:
        both = {kind: _gathered(span, prefix) for kind, prefix in zip(("input", "output"), pair, strict=True)}
        if found := {kind: gathered for kind, gathered in both.items() if gathered}:
            return found
    return {}


def _from_events(events: list[Any]) -> dict[str, Any]:
    """Messages that are events of the span: what was said before the choice is the input."""
    messages: list[Any] = []
    choices: list[Any] = []
    for event in events:
        content = attributes(event)
        name = event.get("name")
        if name in _MESSAGES:
            messages.append({"role": str(name).split(".")[1], **content})
        elif name == "gen_ai.choice":
            choices.append(content)
        elif name == "gen_ai.client.inference.operation.details":
            return payload_of(content, [])
        elif name == "gen_ai.content.prompt" and "gen_ai.prompt" in content:
            messages.append(_decoded(content["gen_ai.prompt"]))
        elif name == "gen_ai.content.completion" and "gen_ai.completion" in content:
            choices.append(_decoded(content["gen_ai.completion"]))
    both = {"input": messages, "output": choices[0] if len(choices) == 1 else choices}
    return {kind: value for kind, value in both.items() if value}


def _gathered(span: dict[str, Any], prefix: str) -> list[Any]:
    """A list from attributes such as `gen_ai.prompt.0.content`; more than 10 001 slots are dropped."""
    slots: dict[int, dict[str, Any]] = {}
    for name, value in span.items():
        index, _, field = name.removeprefix(prefix).partition(".")
        is_index = index.isdecimal() and len(index) <= _MAX_DIGITS
        if name.startswith(prefix) and is_index and len(slots) < _MAX_SLOTS:
            slots.setdefault(int(index), {})[field.removeprefix("message.") or "value"] = value
    return [slots[index] for index in sorted(slots)]


def _decoded(value: Any) -> Any:
    """JSON text as what it says, so that it is not quoted twice."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return from_json(value)
        except ValueError:
            return value
    return value
