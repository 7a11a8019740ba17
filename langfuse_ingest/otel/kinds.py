"""What a span is: the type of its observation, and whether it is a detail that few want to see."""

import re
from typing import Any

from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import first_of


def type_of(said: dict[str, Any], name: str, scope: dict[str, Any], resource: dict[str, Any]) -> str:
    """The type of observation: what is named before what is concluded.

    Args:
        said: attributes of the span.
        name: its own name.
        scope: its instrumentation scope.
        resource: attributes of its resource.
    """
    if _is_generation_called_span(said, scope, resource):
        return "GENERATION"
    return _named(said) or _of_framework(said, name, scope.get("name")) or _of_model(said)


def is_detail(name: str, scope: object) -> bool:
    """Whether the span is one of LiveKit's many that Langfuse shows on the level DEBUG alone."""
    return scope == fields.LIVEKIT_SCOPE and name in fields.LIVEKIT_DEBUG


def _is_generation_called_span(said: dict[str, Any], scope: dict[str, Any], resource: dict[str, Any]) -> bool:
    if said.get(fields.TYPE) != "span" or scope.get("name") != fields.LANGFUSE_SDK:
        return False
    version = re.match(r"(\d{1,9})\.(\d{1,9})", str(scope.get("version")))
    is_old = version is None or (int(version[1]), int(version[2])) <= fields.LAST_WITHOUT_GENERATIONS
    is_python = resource.get("telemetry.sdk.language") == "python"
    return is_old and is_python and any(name in said for name in fields.OF_GENERATIONS)


def _named(said: dict[str, Any]) -> str | None:
    kind = str(said.get(fields.OPENINFERENCE_KIND, "")).upper()
    for named in (str(said.get(fields.TYPE, "")).upper(), fields.OPENINFERENCE_TYPES.get(kind, kind)):
        if named in fields.OBSERVATION_TYPES:
            return named
    operation = fields.OPERATION_TYPES.get(str(said.get(fields.OPERATION)))
    return operation or fields.GENKIT_TYPES.get(str(said.get(fields.GENKIT_SUBTYPE)))


def _of_framework(said: dict[str, Any], name: str, scope: object) -> str | None:
    for attribute in fields.AI_OPERATION:  # the first may have the function's id behind it
        operation = str(said.get(attribute)).partition(" ")[0]
        if operation in fields.AI_OPERATION_TYPES and first_of(said, *fields.MODEL):
            return fields.AI_OPERATION_TYPES[operation]
    if any(mark in said for mark in fields.TOOL_MARKS):
        return "TOOL"
    if scope == fields.LIVEKIT_SCOPE:
        return fields.LIVEKIT_TYPES.get(name)
    return fields.FLUE_TYPES.get(name.partition(" ")[0])  # what tool or agent it is comes behind it


def _of_model(said: dict[str, Any]) -> str:
    return "GENERATION" if first_of(said, *fields.MARKS_OF_GENERATIONS) else "SPAN"
