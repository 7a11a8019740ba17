"""Values in the text of a query."""

from collections.abc import Iterable


def quoted(text: str) -> str:
    """A string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted_array(texts: Iterable[str]) -> str:
    """An array of strings; ClickHouse parses it as one literal, however long it is."""
    return f"[{', '.join(map(quoted, texts))}]"
