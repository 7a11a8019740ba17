"""Looks for late rows while ClickHouse merges."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from langfuse_worker.clickhouse import Query
from langfuse_worker.clickhouse.client import Address
from langfuse_worker.clickhouse.http import HttpClickHouse
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import trace
from tests.waiting import wait_for

_SLOWLY = "(SELECT sleep(3)) = 0"
_RUNNING = "SELECT 1 FROM system.processes WHERE query LIKE '%sleep(3)%' AND query NOT LIKE '%processes%'"


class SlowToListParts(HttpClickHouse):
    """Lets time pass between the beginning of a look and its question for parts."""

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        """See `ClickHouse.rows`."""
        if query.comment.purpose == "late-rows":
            slow = query.sql.replace("system.parts WHERE", f"system.parts WHERE {_SLOWLY} AND")
            query = replace(query, sql=slow)
        return super().rows(query)


def test_a_merge_during_a_look_hides_no_row(deployment: Deployment) -> None:
    deployment.tables, server, settings = TRACES, deployment.server, deployment.settings
    deployment.export(deployment.key(2), deployment.key(1))
    assert deployment.look().requests == []
    limits = deployment.source.limits
    deployment.source = SlowToListParts(Address.of(settings.export_source_url, settings), limits)

    def merge() -> None:
        wait_for(lambda: server.rows(_RUNNING), lambda: "nobody looks for late rows", 60)
        server.execute("SYSTEM START MERGES traces")
        server.execute("OPTIMIZE TABLE traces FINAL")

    server.execute("SYSTEM STOP MERGES traces")
    deployment.write("traces", trace("first", deployment.hour(2).start))
    deployment.write("traces", trace("second", deployment.hour(2).start))
    with ThreadPoolExecutor(1) as pool:
        merged = pool.submit(merge)
        look = deployment.look()
        merged.result()

    assert look.asked == [(deployment.key(2), deployment.key(2), ["traces"])]
