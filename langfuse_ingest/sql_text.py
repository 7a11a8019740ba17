"""Text in SQL, where a parameter will not do: lists of thousands of ids are too long for a URL."""

from collections.abc import Iterable

_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b"}
)

# Of the queries that carry such lists; ClickHouse's default of 256 KiB holds some thousand ids.
SETTINGS = {"max_query_size": 256 << 20}


def quoted(text: str) -> str:
    """A string literal of ClickHouse."""
    return f"'{text.translate(_ESCAPES)}'"


def quoted_list(texts: Iterable[str]) -> str:
    """The inside of `IN (...)`; an empty one matches nothing."""
    return ", ".join(quoted(text) for text in texts) or "NULL"
