"""Text in SQL, where a parameter will not do: lists of thousands of ids are too long for a URL."""

from collections.abc import Iterable

from langfuse_worker.clickhouse.literals import quoted

# Of the queries that carry such lists; ClickHouse's default of 256 KiB holds some thousand ids.
SETTINGS = {"max_query_size": 256 << 20}


def quoted_list(texts: Iterable[str]) -> str:
    """The inside of `IN (...)`; an empty one matches nothing."""
    return ", ".join(quoted(text) for text in texts) or "NULL"
