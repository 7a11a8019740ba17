"""Prices of models from Langfuse's Postgres, read once in an attempt at an export."""

import threading
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from psycopg.sql import SQL

from langfuse_export.errors import PricesError
from langfuse_export.tables import PriceList, Table
from langfuse_export.tables.price_list import KINDS
from langfuse_worker.postgres import Database, DatabaseError

# One statement, so that the time is that of the rows; it has a row without a model if no model has a price.
_QUERY = SQL(
    "SELECT statement_timestamp() AS as_of, p.* FROM (SELECT) AS one LEFT JOIN ("
    "SELECT m.id, p.usage_type, p.price FROM {models} m "
    "JOIN {tiers} t ON t.model_id = m.id AND t.is_default "
    "JOIN {prices} p ON p.model_id = m.id AND p.pricing_tier_id = t.id "
    "WHERE (m.project_id = %(project)s OR m.project_id IS NULL) AND p.usage_type = ANY(%(kinds)s)"
    ") AS p ON true"
)


def read_prices(database: Database, project_id: str) -> PriceList:
    """Default prices of the project's models and of those that Langfuse brings along.

    Raises:
        DatabaseError: Postgres does not answer, or its user may not read them.
    """
    names = {"models": "models", "tiers": "pricing_tiers", "prices": "prices"}
    query = _QUERY.format(**{name: database.table(table) for name, table in names.items()})
    with database.transaction() as cursor:
        rows = cursor.execute(query, {"project": project_id, "kinds": list(KINDS)}).fetchall()
    models: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row["id"] is not None:
            models[row["id"]][row["usage_type"]] = _text(row["price"])
    return PriceList(rows[0]["as_of"], models)


@dataclass
class AttemptPrices:
    """The prices of one attempt at a project's windows: all of its objects have them as of one moment.

    Attributes:
        database: Langfuse's Postgres; None where the deployment has none.
    """

    database: Database | None
    project_id: str

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._read: PriceList | None = None

    def put_into(self, table: Table) -> Table:
        """The table with the prices that its columns show, if it has any. Raises PricesError."""
        if not table.has_prices:
            return table
        with self._lock:
            self._read = self._read or self._prices()
        return table.priced(self._read)

    def _prices(self) -> PriceList:
        if self.database is None:
            raise PricesError("DATABASE_URL is not set, and prices of models are in Langfuse's Postgres")
        try:
            return read_prices(self.database, self.project_id)
        except DatabaseError as error:
            raise PricesError(f"prices of models: {error}") from error


def _text(price: Decimal) -> str:
    """All of its digits, and no others."""
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
