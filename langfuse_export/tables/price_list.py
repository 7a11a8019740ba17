"""Prices of models as of one point in time, and how a query looks them up.

The list travels in the text of the query, and ClickHouse makes a hash table of it, in which it finds each
row's model. A join would do the same, but stand between FINAL and its conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from langfuse_export.windows import EPOCH

KINDS = ("input", "output", "total")
"""Langfuse's usage types that become columns."""

AS_OF = "prices_as_of_ms"
_MODELS = "price_models"


@dataclass(frozen=True)
class PriceList:
    """What a project's models cost.

    Attributes:
        as_of: the moment of the prices, UTC, by Postgres's clock.
        models: by model id and kind, the price as exact decimal text, without an exponent and trailing zeros.
    """

    as_of: datetime
    models: Mapping[str, Mapping[str, str]]

    @property
    def as_of_ms(self) -> int:
        """The moment in ms since the epoch."""
        return (self.as_of - EPOCH) // timedelta(milliseconds=1)

    def lists(self) -> dict[str, list[str]]:
        """What `definitions` binds. The first entry is that of rows without a model."""
        ids = sorted(self.models)
        prices = {_list_of(kind): ["", *(self.models[id].get(kind, "") for id in ids)] for kind in KINDS}
        return {_MODELS: ["", *ids], **prices}


NO_PRICES = PriceList(EPOCH, {})
"""For queries whose rows nobody reads."""


def definitions() -> str:
    """What stands between WITH and SELECT of a query that looks prices up."""
    names = [_MODELS, *map(_list_of, KINDS)]
    return ",\n  ".join(f"{{{name}:Array(String)}} AS __{name}" for name in names)


def price_sql(model_id: str, kind: str) -> str:
    """SQL of a price, NULL where the model has none.

    Args:
        model_id: SQL of the row's model id; the empty string where it has no model.
        kind: one of `KINDS`.
    """
    return f"nullIf(transform({model_id}, __{_MODELS}, __{_list_of(kind)}, ''), '')"


def as_of_sql() -> str:
    """SQL of the moment of the prices."""
    return f"fromUnixTimestamp64Milli({{{AS_OF}:Int64}})"


def _list_of(kind: str) -> str:
    return f"{kind}_prices"
