"""Small draws that every scenario needs: identifiers, weighted choices, durations, spans and model calls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar
from uuid import UUID

from langfuse_export.demo.entities import Call, Life, Span
from langfuse_export.demo.models import Model

Item = TypeVar("Item")
_LATE = 0.02


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool. Its arguments travel as JSON inside JSON."""

    id: str
    name: str
    arguments: dict[str, object]

    def message(self) -> dict[str, object]:
        """The form in which the model answers it."""
        function = {"name": self.name, "arguments": json.dumps(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}

    def column(self, index: int) -> str:
        """The form in which Langfuse stores it in `tool_calls`."""
        arguments = json.dumps(self.arguments)
        return json.dumps({"id": self.id, "arguments": arguments, "type": "function", "index": index})


def hex_id(rng: Random, bits: int) -> str:
    """A random identifier in hexadecimal: 128 bits for a trace, 64 for a span."""
    return f"{rng.getrandbits(bits):0{bits // 4}x}"


def uuid(rng: Random) -> str:
    """A random UUID that depends on nothing but the generator."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def weighted(rng: Random, choices: Sequence[tuple[Item, float]]) -> Item:
    """One item, with a likelihood in proportion to its weight."""
    items, weights = zip(*choices, strict=True)
    return rng.choices(items, weights)[0]


def after(rng: Random, at: datetime, low: float, high: float) -> datetime:
    """A moment between `low` and `high` seconds after `at`, to the microsecond."""
    return at + timedelta(microseconds=int(rng.uniform(low, high) * 1e6))


def text(rng: Random, value: object) -> str:
    """JSON as an SDK sends it: most write characters as they are, some escape all that is not ASCII."""
    return json.dumps(value, ensure_ascii=rng.random() < 0.15)


def life(rng: Random, start: datetime, end: datetime, eager: float = 0.3) -> Life:
    """When the span's rows arrive: long ones sometimes twice, and two in a hundred up to three hours late."""
    late = rng.random() < _LATE
    finished = after(rng, end, 1500, 10_800) if late else after(rng, end, 0.8, 8)
    begun = (
        after(rng, start, 0.2, 0.7) if (end - start).total_seconds() > 1 and rng.random() < eager else None
    )
    return Life(finished, begun)


def new_span(rng: Random, parent: str | None, kind: str, name: str, start: datetime, end: datetime) -> Span:
    """A span without content yet."""
    return Span(hex_id(rng, 64), parent, kind, name, start, end, life(rng, start, end))


def new_call(
    rng: Random, model: Model, span: Span, prompt: tuple[str, int] | None, tokens: tuple[int, int]
) -> Call:
    """The model call of a finished span; `tokens`: input, output. A failed call has no usage."""
    parameters: dict[str, object] = {"max_tokens": rng.choice((800, 1024, 4096))}
    if model.temperature is not None:
        parameters["temperature"] = model.temperature
    failed = span.level == "ERROR"
    usage = {} if failed else model.usage(rng, *tokens)
    first = span.start + (span.end - span.start) * rng.uniform(0.1, 0.4)
    streamed = not failed and tokens[1] > 0
    return Call(
        model=model.name,
        model_id=model.id,
        parameters=json.dumps(parameters),
        prompt=prompt,
        usage=usage,
        cost=model.cost(usage),
        first_token=first if streamed else None,
    )


def add_tools(span: Span, definitions: dict[str, str], calls: list[ToolCall]) -> None:
    """Give the span the three tool columns the way ingestion extracts them from input and output."""
    span.tool_definitions = definitions
    span.tool_call_names = [call.name for call in calls]
    span.tool_calls = [call.column(index) for index, call in enumerate(calls)]


def fail(rng: Random, span: Span, failures: Sequence[str], trace: str) -> None:
    """Turn the span into an error: no output, a status message and a stack trace in the metadata."""
    span.level, span.output = "ERROR", ""
    span.status = rng.choice(failures)
    span.metadata["exception.stacktrace"] = f"{trace}\n{span.status}"
