"""Field types of the ingestion events: each checks a value and may change it, as Langfuse's validators do."""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, StringConstraints

# toDate() is part of the sorting keys, and ClickHouse's Date ends in 2149.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(2149, 6, 6, tzinfo=UTC)
_UNSIGNED_MAX = 2**64 - 1
_ENVIRONMENT = re.compile(r"[a-z0-9-_]+")
_RESERVED = re.compile(r"^(langfuse[-_]?)+")
_INTEGER_START = re.compile(r"\s*\+?(\d{1,99})")


def _identifier(value: str) -> str:
    if "\r" in value:
        raise ValueError("must not contain a carriage return")
    return value


def timestamp(value: object) -> str:
    """An ISO 8601 time with an offset, as UTC of fixed width: such strings sort as the times do.

    Raises:
        ValueError: it is not one, or it lies outside of what the tables can hold.
    """
    if not isinstance(value, str) or "T" not in value:
        raise ValueError("must be an ISO 8601 time such as 2026-06-01T12:00:00.000Z")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be an ISO 8601 time such as 2026-06-01T12:00:00.000Z") from None
    if parsed.tzinfo is None:
        raise ValueError("must have an offset or Z")
    try:
        parsed = parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("timestamp out of range") from None
    if not _EARLIEST <= parsed < _LATEST:
        raise ValueError("timestamp out of range: must be from 1970 to 2149")
    return utc_text(parsed)


def utc_text(moment: datetime) -> str:
    """A UTC time as `timestamp` renders it: 27 characters, microseconds, Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def environment(value: object) -> str:
    """The name in lower case without Langfuse's own prefix, 40 characters; `default` if it is no name."""
    if not isinstance(value, str):
        return "default"
    name = _RESERVED.sub("", value.lower())[:40]
    return name if _ENVIRONMENT.fullmatch(name) else "default"


def usage(value: object) -> dict[str, Any] | None:
    """The deprecated `usage`: counts and costs, or OpenAI's camel-case counts. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    if not _OPENAI_COUNTS.keys().isdisjoint(value):
        return {new: _count(value[old]) for old, new in _OPENAI_COUNTS.items() if value.get(old) is not None}
    return {name: read(value[name]) for name, read in _USAGE.items() if value.get(name) is not None}


def usage_details(value: object) -> dict[str, int] | None:
    """Counts by kind; OpenAI's two shapes are taken apart so that no token is counted twice."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    for shape in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        details = tuple(f"{name}_details" for name in shape)
        if set(shape) | {"total_tokens"} <= set(value) <= {*shape, "total_tokens", *details}:
            # With anything in it that is no count, it is taken as any other object, as Langfuse does.
            with suppress(ValueError):
                return _from_openai(value, shape)
    kept = {str(name): _lenient_count(count) for name, count in value.items()}
    return {name: count for name, count in kept.items() if count is not None} or None


def cost_details(value: object) -> dict[str, float] | None:
    """Costs by kind in US dollars; what is no amount is dropped."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return {str(name): float(cost) for name, cost in value.items() if _is_number(cost) and cost >= 0} or None


def _from_openai(value: dict[str, Any], shape: tuple[str, str]) -> dict[str, int]:
    result = {"total": _count(value["total_tokens"])}
    for name, kind in zip(shape, ("input", "output"), strict=True):
        rest = _count(value[name])
        details = value.get(f"{name}_details") or {}
        if not isinstance(details, dict):
            raise ValueError("details of token counts must be an object")
        for detail, count in details.items():
            if count is not None:
                result[f"{kind}_{detail}"] = _count(count)
                rest = max(0, rest - _count(count))
        result[kind] = rest
    return result


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


def _count(value: Any) -> int:
    if not _is_number(value) or value != int(value) or not 0 <= value <= _UNSIGNED_MAX:
        raise ValueError("token counts must be whole numbers from 0")
    return int(value)


def _lenient_count(value: Any) -> int | None:
    """As JavaScript's parseInt: '12abc' is 12. None for what is no count."""
    if isinstance(value, str):
        found = _INTEGER_START.match(value)
        value = int(found[1]) if found else None
    if _is_number(value) and value == int(value) and 0 <= value <= _UNSIGNED_MAX:
        return int(value)
    return None


def _cost(value: Any) -> float:
    if not _is_number(value):
        raise ValueError("costs must be numbers")
    return float(value)


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("must not be null")
    return value


_OPENAI_COUNTS = {"promptTokens": "input", "completionTokens": "output", "totalTokens": "total"}
_USAGE: dict[str, Callable[[Any], float]] = {
    **dict.fromkeys(("input", "output", "total"), _count),
    **dict.fromkeys(("inputCost", "outputCost", "totalCost"), _cost),
}
Id = Annotated[str, StringConstraints(min_length=1, max_length=800), AfterValidator(_identifier)]
Name = Annotated[str, StringConstraints(max_length=1000)]
Timestamp = Annotated[str, PlainValidator(timestamp)]
OptionalTimestamp = Annotated[str | None, PlainValidator(lambda v: None if v is None else timestamp(v))]
Environment = Annotated[str, PlainValidator(environment)]
Usage = Annotated[dict[str, Any] | None, PlainValidator(usage)]
UsageDetails = Annotated[dict[str, int] | None, PlainValidator(usage_details)]
CostDetails = Annotated[dict[str, float] | None, PlainValidator(cost_details)]
Json = Annotated[Any, BeforeValidator(_not_null)]
