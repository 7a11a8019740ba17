"""Token counts and costs of a span."""

from typing import Any

from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import json_object, object_of
from langfuse_ingest.values import cost_details, usage_details


def usage_of(span: dict[str, Any], *, is_call: bool = True) -> dict[str, int] | None:
    """Counts by kind: the SDK's own, else those of the conventions, so that no token counts twice.

    Args:
        span: its attributes.
        is_call: whether it is a call of a model, and not a span around one.
    """
    own = json_object(span.get(fields.USAGE))
    if own is not None:
        return usage_details(own)
    counts: dict[str, Any] = {}
    for prefix in fields.USAGE_PREFIXES:
        for name, value in span.items():
            if name.startswith(prefix) and name not in fields.COSTS:
                kind = name.removeprefix(prefix)
                counts.setdefault(fields.USAGE_ALIASES.get(kind, kind.removeprefix("details.")), value)
    if is_call:
        counts = _of_ai_sdk(span) | _of_genkit(span) | _of_adk(span) | counts
    found = usage_details(counts) or {}
    for kind in ("input_cache_creation", "input", "output"):  # the first of them is a detail itself
        if kind in found:
            details = sum(count for name, count in found.items() if name.startswith(f"{kind}_"))
            found[kind] = max(0, found[kind] - details)
    return found or None


def _of_ai_sdk(span: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    metadata = json_object(span.get(fields.AI_PROVIDER)) or {}
    for provider, names in fields.AI_PROVIDER_USAGE.items():
        said = json_object(metadata.get(provider)) or {}
        for name in fields.AI_PROVIDER_NESTING:
            said |= json_object(said.get(name)) or {}
        counts |= {kind: said[name] for name, kind in names.items() if name in said}
    return counts | {kind: span[name] for name, kind in fields.AI_USAGE.items() if name in span}


def _of_genkit(span: dict[str, Any]) -> dict[str, Any]:
    if span.get(fields.GENKIT_SUBTYPE) != "model":  # what calls one may put out its counts once more
        return {}
    said = object_of(json_object(span.get(fields.GENKIT_OUTPUT)) or {}, "usage")
    counts = usage_details({kind: said.get(name) for name, kind in fields.GENKIT_USAGE.items()}) or {}
    thoughts = counts.get("output_reasoning_tokens", 0)
    # Gemini counts thoughts beside its output, others within it; the total tells.
    if thoughts and counts.get("input", 0) + counts.get("output", 0) + thoughts <= counts.get("total", 0):
        counts["output"] = counts.get("output", 0) + thoughts
    return counts


def _of_adk(span: dict[str, Any]) -> dict[str, Any]:
    said = object_of(json_object(span.get(fields.ADK_RESPONSE)) or {}, fields.ADK_USAGE)
    return {"input_cached_tokens": said[fields.ADK_CACHED]} if said.get(fields.ADK_CACHED) else {}


def cost_of(span: dict[str, Any]) -> dict[str, float] | None:
    """Costs by kind, US dollars."""
    own = json_object(span.get(fields.COST))
    if own is not None:
        return cost_details(own)
    for name in fields.COSTS:
        if name in span:
            return cost_details({"total": span[name]})
    return None
