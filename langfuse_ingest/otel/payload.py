"""Input and output of a span, wherever its instrumentation has put them."""

from typing import Any

import orjson

from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import attributes

_MAX_SLOTS = 10_001
_MAX_DIGITS = 9  # of an index
_MESSAGES = (
    "gen_ai.system.message",
    "gen_ai.user.message",
    "gen_ai.assistant.message",
    "gen_ai.tool.message",
)


def payload_of(span: dict[str, Any], events: list[Any]) -> tuple[dict[str, Any], set[str]]:
    """Input and output as far as they are there, and the names of the attributes that they came from."""
    for pair in fields.PAYLOADS[:2]:
        if found := _pair(span, pair):
            return found
    if messages := _from_events(events):
        return messages, set()
    for pair in fields.PAYLOADS[2:]:
        if found := _pair(span, pair):
            return found
    for pair in fields.SPREAD_PAYLOADS:
        used = {name for name in span if name.startswith(pair)}
        if used:
            values = {
                kind: gathered
                for kind, prefix in zip(("input", "output"), pair, strict=True)
                if (gathered := _gathered(span, prefix))
            }
            return values, used
    return {}, set()


def _pair(span: dict[str, Any], pair: tuple[str, str]) -> tuple[dict[str, Any], set[str]] | None:
    found = {
        kind: _decoded(span[name])
        for kind, name in zip(("input", "output"), pair, strict=True)
        if span.get(name) not in (None, "")
    }
    return (found, set(pair)) if found else None


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
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value
