"""Input and output of a span, wherever its instrumentation has put them.

JSON text stays as it was sent; what has to be put together from several attributes or events is decoded.
"""

from typing import Any

from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import attributes, from_json, json_object
from langfuse_ingest.otel.spread import gathered
from langfuse_ingest.records import json_text

_MESSAGES = (
    "gen_ai.system.message",
    "gen_ai.user.message",
    "gen_ai.assistant.message",
    "gen_ai.tool.message",
)
_CHOICE = "gen_ai.choice"
_DETAILS = "gen_ai.client.inference.operation.details"
_CONTENTS = {"input": "gen_ai.content.prompt", "output": "gen_ai.content.completion"}
_Event = tuple[Any, dict[str, Any]]


def payload_of(span: dict[str, Any], events: list[Any]) -> dict[str, Any]:
    """Input and output as far as they are there."""
    return (
        _named(span, fields.PAYLOADS_BEFORE_EVENTS)
        or _from_events([(event.get("name"), attributes(event)) for event in events])
        or _from_list_of_events(span)
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
        if fields.WITH_INSTRUCTIONS.intersection(inputs):
            found["input"] = _with_instructions(span, found.get("input"))
        if fields.AI_TEXT in outputs:  # newer versions put a part under the common names
            found = _named(span, fields.PAYLOADS_AFTER_SPREAD) | found
        if fields.AI_TEXT in outputs and {fields.AI_TEXT, fields.AI_TOOL_CALLS} <= span.keys():
            calls = _decoded(span[fields.AI_TOOL_CALLS])
            found["output"] = {"role": "assistant", "content": span[fields.AI_TEXT], "tool_calls": calls}
        if fields.GENKIT_INPUT in inputs:
            found = {kind: _said_by_genkit(value, kind) for kind, value in found.items()}
        return found
    return {}


def _first(span: dict[str, Any], names: tuple[str, ...]) -> Any:
    values = [span[name] for name in names if span.get(name) not in (None, "")]
    return next((value for value in values if value != "{}"), values[0] if values else None)


def _with_instructions(span: dict[str, Any], given: Any) -> Any:
    """The messages with the system's instructions before them, unless there are such."""
    instructions = _decoded(span.get(fields.SYSTEM_INSTRUCTIONS))
    parts = [part for part in (instructions if isinstance(instructions, list) else [instructions]) if part]
    messages = [] if given is None else _decoded(given)
    if not parts or not isinstance(messages, list):
        return given
    if any(isinstance(message, dict) and message.get("role") == "system" for message in messages):
        return given
    if all(isinstance(part, dict) and "parts" in part for part in parts):
        return [*({"role": "system", **part} for part in parts), *messages]
    return [{"role": "system", "content": "\n".join(map(_text, parts))}, *messages]


def _text(part: Any) -> str:
    """Of an instruction, or of a message with such."""
    if isinstance(part, dict) and isinstance(part.get("parts"), list):
        return "\n".join(map(_text, part["parts"]))
    return json_text(part.get("content", part) if isinstance(part, dict) else part)


def _said_by_genkit(value: Any, kind: str) -> Any:
    """The messages of a call; what surrounds them has fields of its own."""
    said = (json_object(value) or {}).get(fields.GENKIT_MESSAGES[kind])
    return value if said is None else said


def _spread(span: dict[str, Any]) -> dict[str, Any]:
    for pair in fields.SPREAD_PAYLOADS:
        both = {kind: gathered(span, prefix) for kind, prefix in zip(("input", "output"), pair, strict=True)}
        if found := {kind: value for kind, value in both.items() if value is not None}:
            return found
    return {}


def _from_events(events: list[_Event]) -> dict[str, Any]:
    """Messages that are events of the span: what was said before the choice is the input."""
    for name, content in events:
        if name == _DETAILS and (found := payload_of(content, [])):
            return found
    messages = [{"role": str(name).split(".")[1], **content} for name, content in events if name in _MESSAGES]
    choices = [content for name, content in events if name == _CHOICE]
    if messages or choices:
        return _without_empty(messages, _one_or_all(choices))
    contents = {kind: _contents(events, kind) for kind in _CONTENTS}
    return _without_empty(contents["input"], contents["output"])


def _contents(events: list[_Event], kind: str) -> Any:
    said = [content for name, content in events if name == _CONTENTS[kind]]
    return _one_or_all([payload_of(content, []).get(kind) or content for content in said])


def _from_list_of_events(span: dict[str, Any]) -> dict[str, Any]:
    """The same as a list in an attribute."""
    listed = _decoded(span.get(fields.EVENTS))
    events = [event for event in listed if isinstance(event, dict)] if isinstance(listed, list) else []
    choices = [event for event in events if event.get("event.name") == _CHOICE]
    return _without_empty(
        [event for event in events if event.get("event.name") != _CHOICE], _one_or_all(choices)
    )


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _without_empty(input: Any, output: Any) -> dict[str, Any]:
    return {kind: value for kind, value in {"input": input, "output": output}.items() if value}


def _decoded(value: Any) -> Any:
    """JSON text as what it says, so that it is not quoted twice."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return from_json(value)
        except ValueError:
            return value
    return value
