"""Values that are spread over attributes such as `gen_ai.prompt.0.content`."""

from itertools import islice
from typing import Any

# A path of two bytes a name makes objects of 240 bytes, so that a span of some MB could fill the memory.
_MAX_ATTRIBUTES = 10_000
_MAX_DEPTH = 16  # names in a path; those of OpenInference have eight
_MAX_DIGITS = 9  # of an index


class _Branch(dict[str, Any]):
    """What lies below a name; unlike an object that an attribute has as its value."""


def gathered(span: dict[str, Any], prefix: str) -> Any:
    """What the attributes of a prefix say together; None if there are none.

    One that is called like the prefix says it all. Numbered names are a list, without the gaps. What lies too
    deep stays one name; what is beyond the first 10 000 attributes is left out.
    """
    if span.get(prefix) not in (None, ""):
        return span[prefix]
    root, start = _Branch(), f"{prefix}."
    for name in islice((name for name in span if name.startswith(start)), _MAX_ATTRIBUTES):
        path = name.removeprefix(start).split(".", _MAX_DEPTH - 1)
        if all(map(_is_name, path)):
            _put(root, path, span[name])
    return _whole(root) if root else None


def _is_name(part: str) -> bool:
    return bool(part) and not (part.isdecimal() and len(part) > _MAX_DIGITS)


def _put(branch: _Branch, path: list[str], value: Any) -> None:
    """Of attributes that contradict each other the first counts."""
    *way, last = path
    for part in way:
        below = branch.setdefault(part, _Branch())
        if not isinstance(below, _Branch):
            return
        branch = below
    branch.setdefault(last, value)


def _whole(value: Any) -> Any:
    if not isinstance(value, _Branch):
        return value
    if all(name.isdecimal() for name in value):
        return [_whole(value[name]) for name in sorted(value, key=int)]
    return {name: _whole(below) for name, below in value.items()}
