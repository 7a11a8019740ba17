"""What one query may take from ClickHouse, and how it signs itself in `system.query_log`."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Self

from langfuse_worker.settings import Settings


@dataclass(frozen=True)
class QueryLimits:
    """Limits of one query; rendered as ClickHouse settings by `settings`.

    Attributes:
        max_threads: threads.
        priority: 1 is the most urgent, larger yields to smaller, 0 switches priorities off. It only yields
            to queries that carry a non-zero, smaller priority themselves.
        max_memory_usage: bytes.
        max_execution_time_s: seconds.
    """

    max_threads: int
    priority: int
    max_memory_usage: int
    max_execution_time_s: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The deployment's limits of export queries."""
        return cls(
            max_threads=settings.export_max_threads,
            priority=settings.export_priority,
            max_memory_usage=settings.export_max_memory_usage,
            max_execution_time_s=-(-settings.export_request_timeout_ms // 1000),
        )

    def on(self, cores: int) -> Self:
        """The same, with at most a thread a core of the server: more take memory and are not faster."""
        return replace(self, max_threads=min(self.max_threads, cores))

    def settings(self) -> dict[str, int]:
        """The limits as ClickHouse settings."""
        return {
            "max_threads": self.max_threads,
            "priority": self.priority,
            "max_memory_usage": self.max_memory_usage,
            "max_execution_time": self.max_execution_time_s,
        }


# Ingestion is as urgent as the people who wait for a page; 35 s is what Langfuse's own writer allows.
INGESTION_LIMITS = QueryLimits(max_threads=4, priority=1, max_memory_usage=10**10, max_execution_time_s=35)


@dataclass(frozen=True)
class QueryComment:
    """Who sent a query and what for: JSON in `log_comment`, so that query_log joins to runs and objects."""

    purpose: str
    project: str | None = None
    table: str | None = None
    window: str | None = None
    run: str | None = None

    def __str__(self) -> str:
        named = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps({"product": "langfuse-export", **named}, ensure_ascii=False)
