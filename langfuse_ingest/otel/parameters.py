"""Parameters of a model's call."""

from typing import Any

from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import first_of, json_object, object_of
from langfuse_ingest.records import json_text


def parameters_of(span: dict[str, Any], scope: object) -> dict[str, Any]:
    """What a span's attributes say of parameters, as texts and numbers, which is all that Langfuse shows.

    Args:
        span: its attributes.
        scope: name of its instrumentation scope.
    """
    own = json_object(span.get(fields.MODEL_PARAMETERS)) or {}
    said = _of_ai_sdk(span) | own if scope == fields.AI_SCOPE else own
    said = said or _of_genkit(span) or _of_conventions(span)
    return {name: value if _is_number(value) else json_text(value) for name, value in said.items()}


def _of_ai_sdk(span: dict[str, Any]) -> dict[str, str]:
    """Under the names and in the spelling that Langfuse gives them."""
    said = {name: first_of(span, *names) for name, names in fields.AI_PARAMETERS.items()}
    metadata = json_object(span.get(fields.AI_PROVIDER)) or {}
    said["service_tier"] = object_of(metadata, "openai").get("serviceTier") or said["service_tier"]
    return {name: _text(value) for name, value in said.items() if value is not None}


def _of_genkit(span: dict[str, Any]) -> dict[str, Any]:
    if span.get(fields.GENKIT_SUBTYPE) != "model":
        return {}
    asked = json_object(span.get(fields.GENKIT_INPUT)) or {}
    if "config" not in asked:
        asked = object_of(json_object(span.get(fields.GENKIT_OUTPUT)) or {}, "request")
    return {name: value for name, value in object_of(asked, "config").items() if name != "apiKey"}


def _of_conventions(span: dict[str, Any]) -> dict[str, Any]:
    for name in fields.PARAMETERS:
        if shared := json_object(span.get(name)):
            return shared
    return {
        name.removeprefix(prefix): value
        for prefix in fields.PARAMETER_PREFIXES
        for name, value in span.items()
        if name.startswith(prefix) and name != prefix + "model"
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return json_text(value)
