"""What is exported of each Langfuse table: one declarative spec per table, and the columns in their order.

Names, types and order are those of Langfuse 4.16's own blob export, so that its consumers keep working; what
goes beyond it is opted into. SQL is rendered from these specs in `langfuse_export/sql.py` and nowhere else.
"""

from langfuse_export.tables.dataset_run_items import DATASET_RUN_ITEMS
from langfuse_export.tables.events import EVENTS
from langfuse_export.tables.masks import Hash, Mask, Replace
from langfuse_export.tables.model import Column, Condition, Filter, Table, UnknownColumnError
from langfuse_export.tables.observations import OBSERVATIONS
from langfuse_export.tables.price_list import NO_PRICES, PriceList
from langfuse_export.tables.scores import SCORES, with_corrections
from langfuse_export.tables.traces import TRACES

__all__ = [
    "ALL_GROUPS",
    "ALL_TABLES",
    "NO_PRICES",
    "TABLES",
    "Column",
    "Condition",
    "Filter",
    "Hash",
    "Mask",
    "PriceList",
    "Replace",
    "Table",
    "UnknownColumnError",
    "with_corrections",
]

TABLES: dict[str, Table] = {table.name: table for table in (TRACES, OBSERVATIONS, SCORES, EVENTS)}
"""What Langfuse exports, and what is exported by default."""

ALL_TABLES: dict[str, Table] = {**TABLES, DATASET_RUN_ITEMS.name: DATASET_RUN_ITEMS}
"""Every table that a catalog may name."""

ALL_GROUPS: frozenset[str] = frozenset(group for table in ALL_TABLES.values() for group in table.groups)
