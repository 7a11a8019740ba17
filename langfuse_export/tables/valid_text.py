"""Strings as UTF-8, whatever ClickHouse holds: readers refuse a whole file for one string that is none.

Half an emoji is enough, which a client that cuts texts sends as `\\ude00` and ClickHouse stores as it is.
"""


def valid_text(expression: str, kind: str) -> str:
    """SQL of a value with U+FFFD instead of what is not UTF-8.

    Args:
        expression: SQL of the value.
        kind: its ClickHouse type, which stays. Without strings, but for the keys of a map, the SQL does, too.
    """
    if kind.startswith("Map("):
        each = f"mapApply((k, v) -> (toValidUTF8(k), toValidUTF8(v)), {expression})"
        return f"CAST({each} AS {kind})" if kind.endswith("String)") else expression
    if kind.startswith("Array("):
        return f"arrayMap(v -> toValidUTF8(v), {expression})"
    return f"toValidUTF8({expression})" if "String" in kind else expression
