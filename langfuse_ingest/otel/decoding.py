"""Values of OTLP/JSON: ids, times, attributes."""

import math
from datetime import UTC, datetime
from typing import Any

import orjson

from langfuse_ingest.events import EventError
from langfuse_ingest.surrogates import read_json
from langfuse_ingest.values import timestamp

_TWO_32 = 2**32
_DEEP = 200  # levels; orjson reads some thousand and writes 254, a few of which are around a value
_INT64 = range(-(2**63), 2**63)
_EXACT = 2**53  # whole numbers up to here are floats


def identifier(value: object) -> str:
    """A trace or span id: a string as it is, bytes in any of JavaScript's spellings as hex; empty if absent.

    Raises:
        EventError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value or ""
    data = value.get("data") if isinstance(value, dict) else value
    try:
        if isinstance(data, list):
            return bytes(data).hex()
    except (TypeError, ValueError):
        pass  # not a list of bytes
    raise EventError("invalid_span_id", f"cannot be read as an id: {str(value)[:80]}")


def attribute_value(value: object) -> Any:
    """An AnyValue as JSON has it; what is none of its kinds is JSON text."""
    if not isinstance(value, dict):
        return value
    if "stringValue" in value:
        return value["stringValue"]
    if "boolValue" in value:
        return value["boolValue"]
    if "intValue" in value:
        return integer(value["intValue"])
    if "doubleValue" in value:
        return _double(value["doubleValue"])
    if "arrayValue" in value:
        return [attribute_value(item) for item in list_of(object_of(value, "arrayValue"), "values")]
    return orjson.dumps(value).decode()


def attributes(owner: dict[str, Any]) -> dict[str, Any]:
    """What an object's `attributes`, a list of key and value, say; what is no such pair is left out."""
    items = [item for item in list_of(owner, "attributes") if isinstance(item, dict)]
    return {i["key"]: attribute_value(i.get("value")) for i in items if isinstance(i.get("key"), str)}


def first_of(said: dict[str, Any], *names: str) -> Any:
    """The first of the attributes that says anything."""
    return next((said[name] for name in names if said.get(name) not in (None, "")), None)


def object_of(owner: dict[str, Any], name: str) -> dict[str, Any]:
    """An object's field that is an object; an empty one if it is absent or something else."""
    value = owner.get(name)
    return value if isinstance(value, dict) else {}


def list_of(owner: dict[str, Any], name: str) -> list[Any]:
    """An object's field that is a list; an empty one if it is absent or something else."""
    value = owner.get(name)
    return value if isinstance(value, list) else []


def from_json(text: str) -> Any:
    """What JSON text says.

    Raises:
        ValueError: it is none, or nested so deeply that no row can hold it.
    """
    value = around = read_json(text)
    if text.count("{") + text.count("[") > _DEEP:
        for _ in range(254 - _DEEP):
            around = [around]
        try:
            orjson.dumps(around)
        except TypeError as error:
            raise ValueError(str(error)) from None
    return value


def json_object(value: object) -> dict[str, Any] | None:
    """JSON text of an object as what it says, an object as a copy; None for everything else."""
    if isinstance(value, str):
        try:
            value = from_json(value)
        except ValueError:
            return None
    return dict(value) if isinstance(value, dict) else None


def integer(value: object) -> Any:
    """An int64: a number, decimal text, or the two halves that some encoders write; else as it is."""
    number = value
    if isinstance(value, dict):
        low, high = value.get("low", 0), value.get("high", 0)
        if isinstance(low, int) and isinstance(high, int):
            number = low if high == 0 else high * _TWO_32 + (low % _TWO_32)
    elif isinstance(value, str):
        try:
            number = int(value)
        except ValueError:  # no number, or one of thousands of digits
            return value
    return number if not isinstance(number, int) or number in _INT64 else str(value)


def time_of_nanoseconds(value: object) -> str | None:
    """A time in nanoseconds since 1970 as ISO text of milliseconds, as Langfuse keeps it.

    None if it is absent, or outside of what the tables can hold.
    """
    nanoseconds = integer(value)
    if not isinstance(nanoseconds, int | float) or nanoseconds <= 0:
        return None
    milliseconds = int(nanoseconds) // 1_000_000
    try:
        return timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat())
    except (ValueError, OverflowError, OSError):
        return None


def _double(value: object) -> Any:
    """A number, without a fraction if it has none, as JavaScript writes it; text for what JSON cannot say."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
    if not isinstance(number, float):
        return number
    if not math.isfinite(number):
        return value
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number
