"""The ingestion events of Langfuse 4.16: what a client may send, one model a type.

Field names, types and limits are those of `packages/shared/src/server/ingestion/types.ts`. Unknown keys are
dropped; a key that was not sent stays absent, because absent and null merge differently.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from langfuse_ingest.values import (
    CostDetails,
    Environment,
    Id,
    Json,
    Name,
    OptionalTimestamp,
    Timestamp,
    Usage,
    UsageDetails,
)


class Entity(StrEnum):
    """What an event describes; also the first part of `blob_storage_file_log`'s key."""

    TRACE = "trace"
    OBSERVATION = "observation"
    SCORE = "score"


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True)


class TraceBody(_Model):
    """What is known of a trace."""

    id: Id | None = None
    timestamp: OptionalTimestamp = None
    name: Name | None = None
    external_id: str | None = None
    input: Any = None
    output: Any = None
    session_id: Annotated[str, StringConstraints(max_length=800)] | None = None
    user_id: str | None = None
    environment: Environment = "default"
    metadata: Json | None = None
    release: str | None = None
    version: str | None = None
    public: bool | None = None
    tags: list[str] | None = None


class ObservationBody(_Model):
    """What is known of an observation, whatever its type."""

    id: Id
    trace_id: Id | None = None
    environment: Environment = "default"
    name: str | None = None
    start_time: OptionalTimestamp = None
    metadata: Json | None = None
    input: Any = None
    output: Any = None
    level: Literal["DEBUG", "DEFAULT", "WARNING", "ERROR"] | None = None
    status_message: str | None = None
    parent_observation_id: str | None = None
    version: str | None = None


class SpanBody(ObservationBody):
    """An observation that ends."""

    end_time: OptionalTimestamp = None


ModelParameter = str | bool | int | float | list[str] | dict[str, str] | None
PromptVersion = Annotated[int, Field(ge=0, le=65_535)]


class GenerationBody(SpanBody):
    """A call of a model."""

    completion_start_time: OptionalTimestamp = None
    model: str | None = None
    model_parameters: dict[str, ModelParameter] | None = None
    usage: Usage = None
    usage_details: UsageDetails = None
    cost_details: CostDetails = None
    prompt_name: str | None = None
    prompt_version: PromptVersion | None = None

    @model_validator(mode="after")
    def _prompt_is_whole(self) -> "GenerationBody":
        if bool(self.prompt_name) != (self.prompt_version is not None):
            raise ValueError("promptName and promptVersion must be given together")
        return self


class LegacyObservationBody(GenerationBody):
    """The body of the old observation-create and observation-update."""

    type: Literal["GENERATION", "SPAN", "EVENT"]


class ScoreBody(_Model):
    """A score of a trace, an observation, a session or a dataset run."""

    id: Id | None = None
    name: Annotated[str, StringConstraints(min_length=1)]
    trace_id: Id | None = None
    session_id: str | None = None
    dataset_run_id: str | None = None
    environment: Environment = "default"
    observation_id: str | None = None
    comment: str | None = None
    metadata: Json | None = None
    source: Literal["API", "EVAL", "ANNOTATION"] = "API"
    execution_trace_id: str | None = None
    queue_id: str | None = None
    config_id: str | None = None
    value: Annotated[float, Field(allow_inf_nan=False)] | str
    data_type: Literal["NUMERIC", "CATEGORICAL", "BOOLEAN", "CORRECTION", "TEXT"] | None = None

    @model_validator(mode="after")
    def _value_fits(self) -> "ScoreBody":
        is_text = isinstance(self.value, str)
        if self.data_type in ("NUMERIC", "BOOLEAN") and is_text:
            raise ValueError(f"value of a {self.data_type} score must be a number")
        if self.data_type == "BOOLEAN" and self.value not in (0, 1):
            raise ValueError("value of a BOOLEAN score must be 0 or 1")
        if self.data_type in ("CATEGORICAL", "CORRECTION", "TEXT") and not is_text:
            raise ValueError(f"value of a {self.data_type} score must be a string")
        if self.data_type == "TEXT" and not 1 <= len(str(self.value)) <= 500:
            raise ValueError("value of a TEXT score must have 1 to 500 characters")
        return self

    @model_validator(mode="after")
    def _has_one_target(self) -> "ScoreBody":
        targets = (self.trace_id, self.session_id, self.dataset_run_id)
        if sum(target is not None for target in targets) != 1:
            raise ValueError("exactly one of traceId, sessionId and datasetRunId must be given")
        if self.observation_id is not None and self.trace_id is None:
            raise ValueError("observationId needs traceId")
        return self

    @model_validator(mode="after")
    def _config_is_known(self) -> "ScoreBody":
        if self.data_type == "CORRECTION":
            if self.config_id is not None or self.trace_id is None:
                raise ValueError("a CORRECTION belongs to a trace and has no configId")
        elif self.source == "ANNOTATION" and self.config_id is None:
            raise ValueError("an ANNOTATION needs configId")
        return self


class _Envelope(_Model):
    id: Id
    timestamp: Timestamp


class TraceEvent(_Envelope):
    """A trace, or a part of what is known of it."""

    type: Literal["trace-create"]
    body: TraceBody


class EventEvent(_Envelope):
    """A point in time."""

    type: Literal["event-create"]
    body: ObservationBody


class SpanEvent(_Envelope):
    """A span."""

    type: Literal["span-create", "span-update"]
    body: SpanBody


class GenerationEvent(_Envelope):
    """A generation, or another kind of observation with its fields."""

    type: Literal[
        "generation-create",
        "generation-update",
        "agent-create",
        "tool-create",
        "chain-create",
        "retriever-create",
        "evaluator-create",
        "embedding-create",
        "guardrail-create",
    ]
    body: GenerationBody


class LegacyObservationEvent(_Envelope):
    """An observation of old SDKs."""

    type: Literal["observation-create", "observation-update"]
    body: LegacyObservationBody


class ScoreEvent(_Envelope):
    """A score."""

    type: Literal["score-create"]
    body: ScoreBody


class SdkLogEvent(_Envelope):
    """A line that an SDK logs; it is accepted and leads to no row."""

    type: Literal["sdk-log"]


Event = (
    TraceEvent | EventEvent | SpanEvent | GenerationEvent | LegacyObservationEvent | ScoreEvent | SdkLogEvent
)
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


class EventError(ValueError):
    """An event is not accepted.

    Attributes:
        reason: the kind of mistake, of few values, to count by.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def parse_event(raw: object) -> Event:
    """Validate one event of a batch.

    Raises:
        EventError: it is invalid; the message names the field.
    """
    try:
        return _EVENT.validate_python(raw)
    except ValidationError as error:
        raise _event_error(error.errors()[0]) from None


def entity_of(event: Event) -> Entity | None:
    """What the event describes; None for an SDK's log line."""
    if isinstance(event, TraceEvent):
        return Entity.TRACE
    if isinstance(event, ScoreEvent):
        return Entity.SCORE
    return None if isinstance(event, SdkLogEvent) else Entity.OBSERVATION


def _event_error(detail: ErrorDetails) -> EventError:
    kind = detail["type"]
    if kind == "union_tag_invalid":
        sent = detail.get("ctx", {}).get("tag")
        return EventError("unknown_type", f"type: {sent!r} is not an event type")
    if kind in ("union_tag_not_found", "model_type", "model_attributes_type", "dict_type"):
        return EventError("not_an_event", "must be a JSON object with id, timestamp, type and body")
    # The first part of the location is the tag of the union.
    field = ".".join(str(part) for part in detail["loc"][1:]) or "event"
    message = detail["msg"].removeprefix("Value error, ")
    if "out of range" in message:
        return EventError("timestamp_out_of_range", f"{field}: {message}")
    return EventError("missing_field" if kind == "missing" else "invalid_field", f"{field}: {message}")
