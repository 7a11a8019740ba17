"""Generated sessions of an LLM application, as the events that an SDK sends."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

Event = dict[str, Any]

START = datetime(2026, 6, 1, 8, tzinfo=UTC)
WORDS = [
    "the",
    "model",
    "answers",
    "a",
    "question",
    "about",
    "an",
    "invoice",
    "with",
    "two",
    "items",
    "and",
    "a",
    "refund",
    "für",
    "Ähre",
    "日本",
    "∑",
]


def iso(moment: datetime) -> str:
    """As SDKs render times."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(type: str, at: datetime, body: Event, id: str | None = None) -> Event:
    """One event; its id is made from what it says unless it is given."""
    return {
        "id": id or f"{type}-{body.get('id')}-{at.timestamp():.3f}",
        "timestamp": iso(at),
        "type": type,
        "body": body,
    }


def trace(id: str, **body: object) -> Event:
    """A trace event."""
    return event("trace-create", START, {"id": id, **body}, id=f"event of {id}"[:800])


def sessions(count: int, seed: int = 1, words: int = 60, start: datetime = START) -> Iterator[Event]:
    """Events of so many traces in the order in which they happen within each.

    A trace is created and updated; so are a span and a generation in it; two scores come.
    """
    chance = random.Random(seed)

    def text() -> str:
        return " ".join(chance.choices(WORDS, k=words))

    for number in range(count):
        name = f"{seed}-{number}"
        at = start + timedelta(milliseconds=chance.randrange(12 * 3_600_000))
        trace, span, generation = f"trace-{name}", f"span-{name}", f"generation-{name}"
        step = iter(at + timedelta(milliseconds=n * 7 + 1) for n in range(20))
        tags = chance.sample(["a", "b", "beta", "prod", "ü"], 2)
        yield event(
            "trace-create",
            next(step),
            {
                "id": trace,
                "timestamp": iso(at),
                "name": "chat",
                "userId": f"u{number % 9}",
                "sessionId": f"s{number % 5}",
                "tags": tags[:1],
                "metadata": {"app": {"version": 1}},
                "input": {"question": text()},
            },
        )
        yield event(
            "span-create",
            next(step),
            {
                "id": span,
                "traceId": trace,
                "name": "retrieve",
                "startTime": iso(at),
                "metadata": {"k": [1, 2, 3]},
                "input": text(),
            },
        )
        yield event(
            "generation-create",
            next(step),
            {
                "id": generation,
                "traceId": trace,
                "parentObservationId": span,
                "name": "llm",
                "startTime": iso(at),
                "model": "gpt-5",
                "modelParameters": {"temperature": 0.2},
                "input": [{"role": "user", "content": text()}],
            },
        )
        yield event(
            "span-update",
            next(step),
            {
                "id": span,
                "endTime": iso(at + timedelta(seconds=1)),
                "output": text(),
                "metadata": {"k": [9], "hits": number},
            },
        )
        yield event(
            "generation-update",
            next(step),
            {
                "id": generation,
                "endTime": iso(at + timedelta(seconds=2)),
                "output": {"role": "assistant", "content": text()},
                "usageDetails": {"input": chance.randrange(900), "output": chance.randrange(300)},
                "costDetails": {"input": 0.001, "output": 0.0005},
                "level": chance.choice(["DEFAULT", "ERROR", None]),
            },
        )
        yield event(
            "trace-create",
            next(step),
            {
                "id": trace,
                "output": {"answer": text()},
                "tags": tags[1:],
                "metadata": {"app": {"build": number}, "done": True},
            },
        )
        yield event(
            "score-create",
            next(step),
            {
                "id": f"helpful-{name}",
                "traceId": trace,
                "name": "helpful",
                "value": chance.random(),
                "comment": chance.choice([None, "fine"]),
            },
        )
        yield event(
            "score-create",
            next(step),
            {
                "id": f"tone-{name}",
                "traceId": trace,
                "observationId": generation,
                "name": "tone",
                "value": chance.choice(["kind", "curt"]),
                "dataType": "CATEGORICAL",
            },
        )
