"""What the scenarios build before it becomes rows: a trace with its spans, scores and dataset run item."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from random import Random
from typing import Protocol


class Wave(IntEnum):
    """Which insert a version travels in. Versions of one record in one insert would collapse on the spot."""

    FIRST = 0
    UPDATE = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a record as the database learns it; `at` is both `event_ts` and `updated_at`."""

    wave: Wave
    at: datetime
    created: datetime
    partial: bool = False
    deleted: bool = False


@dataclass(slots=True)
class Life:
    """When the database hears about a record: begun (unfinished, optional), finished, deleted (optional)."""

    finished: datetime
    begun: datetime | None = None
    deleted: datetime | None = None

    def versions(self) -> Iterator[Version]:
        """The states in the order of their arrival."""
        created = self.begun or self.finished
        if self.begun:
            yield Version(Wave.FIRST, self.begun, created, partial=True)
        yield Version(Wave.UPDATE if self.begun else Wave.FIRST, self.finished, created)
        if self.deleted:
            yield Version(Wave.DELETE, self.deleted, created, deleted=True)


@dataclass(frozen=True, slots=True)
class Call:
    """What a generation adds to a span: model, prompt, tokens per kind, US dollars per kind, first token."""

    model: str
    model_id: str
    parameters: str
    prompt: tuple[str, int] | None
    usage: dict[str, int]
    cost: dict[str, Decimal]
    first_token: datetime | None


@dataclass(slots=True)
class Span:
    """One observation, in the words of OpenTelemetry; times have microseconds, as an SDK measures them."""

    id: str
    parent_id: str | None
    kind: str
    name: str
    start: datetime
    end: datetime
    life: Life
    input: str = ""
    output: str = ""
    level: str = "DEFAULT"
    status: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    call: Call | None = None
    tool_definitions: dict[str, str] = field(default_factory=dict)
    tool_calls: list[str] = field(default_factory=list)
    tool_call_names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Score:
    """One judgement of a trace, an observation, a session or a dataset run."""

    id: str
    at: datetime
    name: str
    data_type: str
    source: str
    life: Life
    value: float = 0.0
    text: str | None = None
    long_text: str = ""
    comment: str | None = None
    span_id: str | None = None
    session_id: str | None = None
    dataset_run_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """The place of a trace in a nightly dataset run."""

    run_id: str
    run_name: str
    run_start: datetime
    dataset_id: str
    item_id: str
    expected: str


@dataclass(slots=True)
class Trace:
    """One request or agent run. Its first span is the root."""

    id: str
    name: str
    start: datetime
    user_id: str | None
    session_id: str | None
    environment: str
    release: str
    version: str
    tags: list[str]
    input: str
    output: str
    metadata: dict[str, str]
    life: Life
    public: bool = False
    bookmarked: bool = False
    spans: list[Span] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    experiment: Experiment | None = None


@dataclass(frozen=True, slots=True)
class Opinions:
    """What the people who judge a scenario's traces write: comments (None: nothing) and corrected outputs."""

    comments: tuple[str | None, ...]
    corrections: tuple[str, ...]


class Scenario(Protocol):
    """Builds one trace that starts at `start`; `large` asks for an input of about 400 KB."""

    def __call__(self, rng: Random, start: datetime, *, large: bool) -> Trace: ...
