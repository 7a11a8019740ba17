"""What queries cost ClickHouse, from `system.query_log`.

It is looked up when somebody asks: ClickHouse writes the log some seconds after a query has ended, and what
its HTTP headers say was sent before the first byte of the result, when reading had hardly begun.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from langfuse_worker.clickhouse import (
    ACCESS_DENIED,
    UNKNOWN_TABLE,
    ClickHouse,
    ClickHouseError,
    Query,
    QueryComment,
)

_IDS_PER_QUERY = 1000
_SLACK = timedelta(days=1)  # clocks and long queries

_SQL = """
SELECT query_id, any(type), sum(read_rows), sum(read_bytes), max(memory_usage),
  sum(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1e6
FROM system.query_log
WHERE type != 'QueryStart' AND event_date BETWEEN {first:Date} AND {last:Date}
  AND query_id IN {ids:Array(String)}
GROUP BY query_id
"""


@dataclass(frozen=True)
class QueryCost:
    """One query.

    Attributes:
        read_rows: rows that ClickHouse read.
        read_bytes: bytes that it read, uncompressed.
        peak_memory: bytes.
        cpu_s: seconds of CPU, user and system.
    """

    read_rows: int
    read_bytes: int
    peak_memory: int
    cpu_s: float


@dataclass(frozen=True)
class QueryCosts:
    """Costs by query id; `unavailable` says why there are none, if there cannot be any."""

    by_id: Mapping[str, QueryCost] = field(default_factory=dict)
    unavailable: str | None = None

    def of(self, query_ids: Iterable[str]) -> QueryCost | None:
        """What those of the queries that the log has cost together; None if it has none of them."""
        known = [self.by_id[query_id] for query_id in query_ids if query_id in self.by_id]
        return _total(known) if known else None


def _total(costs: Sequence[QueryCost]) -> QueryCost:
    """Sums, and the largest of the peaks."""
    return QueryCost(
        read_rows=sum(cost.read_rows for cost in costs),
        read_bytes=sum(cost.read_bytes for cost in costs),
        peak_memory=max(cost.peak_memory for cost in costs),
        cpu_s=sum(cost.cpu_s for cost in costs),
    )


def query_costs(source: ClickHouse, finished: Iterable[tuple[str, datetime]]) -> QueryCosts:
    """Look queries up. Never raises for what ClickHouse says.

    Args:
        source: the server that ran them.
        finished: query ids, and about when each ended.
    """
    queries = list(dict(finished).items())
    found: dict[str, QueryCost] = {}
    for at in range(0, len(queries), _IDS_PER_QUERY):
        batch = queries[at : at + _IDS_PER_QUERY]
        times = [time for _, time in batch]
        parameters = {
            "first": f"{min(times) - _SLACK:%Y-%m-%d}",
            "last": f"{max(times) + _SLACK:%Y-%m-%d}",
        }
        lists = {"ids": [query_id for query_id, _ in batch]}
        try:
            rows = source.rows(Query(_SQL, QueryComment(purpose="history"), parameters, lists=lists))
        except ClickHouseError as error:
            return QueryCosts(unavailable=_why(error))
        found |= {row[0]: QueryCost(int(row[2]), int(row[3]), int(row[4]), float(row[5])) for row in rows}
    return QueryCosts(found)


def _why(error: ClickHouseError) -> str:
    if error.code == UNKNOWN_TABLE:
        return "ClickHouse has no system.query_log: it is switched off, or nothing has been logged yet"
    if error.code == ACCESS_DENIED:
        return "this user may not read it: GRANT SELECT ON system.query_log"
    return str(error)
