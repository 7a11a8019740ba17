"""Values in the text of a query."""

from collections.abc import Iterable

_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b"}
)


def quoted(text: str) -> str:
    """A string."""
    return f"'{text.translate(_ESCAPES)}'"


def quoted_array(texts: Iterable[str]) -> str:
    """An array of strings; ClickHouse parses it as one literal, however long it is."""
    return f"[{', '.join(map(quoted, texts))}]"
