"""How large the file of a window will be, before it streams: uploads choose the size of their parts by it."""

from collections.abc import Callable

from langfuse_export.tables import Table

# Fewer rows fit into the parts of any upload, unless each is hundreds of kB in the file.
FROM_ROWS = 1_000_000
# Each may cost ClickHouse a granule of 10 MB.
_ROWS_IN_SAMPLE = 32


def expected_bytes(table: Table, rows: int, row_bytes: Callable[[int], float]) -> int:
    """About how large the file will be, before compression; 0 for windows that fit into any upload.

    Args:
        table: with the exported columns.
        rows: in the window.
        row_bytes: average bytes of a row in memory, from one in so many.
    """
    if rows < FROM_ROWS:
        return 0
    names = sum(len(column.name) + len('"":,') for column in table.columns)
    return round(rows * (row_bytes(max(1, rows // _ROWS_IN_SAMPLE)) + names))
