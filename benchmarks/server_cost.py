"""What queries took of ClickHouse, from its own log."""

from dataclasses import dataclass

from tests.servers.clickhouse import ClickHouseServer

# As in the costs that exports report.
_COST = """
SELECT sum(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1e6 AS cpu_s,
  max(memory_usage) AS peak_bytes, sum(read_bytes) AS read_bytes
FROM system.query_log WHERE type = 'QueryFinish' AND
"""


@dataclass(frozen=True)
class ServerCost:
    """What queries took together: CPU seconds, bytes read, and the memory of the heaviest, bytes."""

    cpu_s: float
    peak_bytes: int
    read_bytes: int


def server_cost(server: ClickHouseServer, condition: str) -> ServerCost:
    """The cost of the queries that have ended and match a condition on `system.query_log`."""
    server.execute("SYSTEM FLUSH LOGS query_log")
    [row] = server.rows(f"{_COST}{condition}")
    return ServerCost(float(row["cpu_s"]), int(row["peak_bytes"]), int(row["read_bytes"]))
