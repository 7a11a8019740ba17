"""Values of OTLP/JSON: ids, times, attributes."""

from datetime import UTC, datetime
from typing import Any

import orjson

from langfuse_ingest.events import EventError
from langfuse_ingest.values import utc_text

_TWO_32 = 2**32


def identifier(value: object) -> str:
    """A trace or span id: a string as it is, bytes in any of JavaScript's spellings as hex; empty if absent.

    Raises:
        EventError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value or ""
    data = value.get("data") if isinstance(value, dict) else value
    try:
        return bytes(data).hex()  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise EventError("invalid_span_id", f"cannot be read as an id: {str(value)[:80]}") from None


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
        return [attribute_value(item) for item in (value["arrayValue"] or {}).get("values", [])]
    return orjson.dumps(value).decode()


def attributes(items: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A list of key and value as a dict."""
    return {item["key"]: attribute_value(item.get("value")) for item in items or [] if "key" in item}


def integer(value: object) -> Any:
    """An int64: a number, decimal text, or the two halves that some encoders write."""
    if isinstance(value, dict):
        low, high = int(value.get("low", 0)), int(value.get("high", 0))
        if high == 0:
            return low
        return high * _TWO_32 + (low % _TWO_32)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return value
    return value


def time_of_nanoseconds(value: object) -> str | None:
    """A time in nanoseconds since 1970 as ISO text of milliseconds, as Langfuse keeps it; None if absent."""
    nanoseconds = integer(value)
    if not isinstance(nanoseconds, int | float) or nanoseconds <= 0:
        return None
    milliseconds = int(nanoseconds) // 1_000_000
    try:
        return utc_text(datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _double(value: object) -> Any:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if number == number and abs(number) != float("inf") else value
    return value
