"""Postgres: an instance of several machines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.events.log import EventLogEntry
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage
from dagster_postgres.utils import create_pg_connection, pg_url_from_config
from sqlalchemy.engine import Connection

from langfuse_worker.dagster_storage.backfills import CancellingRunStorage
from langfuse_worker.dagster_storage.transactions import OpenTransactions

_NAME = "postgres"


class PostgresEventLog(PostgresEventLogStorage):
    """Dagster's event log in Postgres. A batch of events is one connection and one transaction."""

    def __init__(self, postgres_url: str, should_autocreate_tables: bool = True) -> None:
        self._open = OpenTransactions()
        super().__init__(postgres_url, should_autocreate_tables)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of a run in one transaction."""
        with self.transaction(events[0].run_id):
            super().store_event_batch(events)

    @contextmanager
    def transaction(self, run_id: str) -> Iterator[None]:
        """See `TransactionalEventLog`; the transaction takes whatever this thread stores."""
        with create_pg_connection(self._engine) as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin(), self._open.hold(_NAME, connection):
                yield

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if connection := self._open.get(_NAME):
            yield connection
            return
        with create_pg_connection(self._engine) as connection:
            yield connection


class PostgresRuns(CancellingRunStorage, PostgresRunStorage):
    """Dagster's runs and backfills in Postgres."""


class PostgresStorage(DagsterPostgresStorage):
    """Dagster's storage in Postgres with that event log; tables are Dagster's own."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._event_log_storage = PostgresEventLog(postgres_url, should_autocreate_tables)
        self._run_storage = PostgresRuns(postgres_url, should_autocreate_tables)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> "PostgresStorage":
        """See Dagster's `ConfigurableClass`."""
        return cls(
            pg_url_from_config(config_value), config_value.get("should_autocreate_tables", True), inst_data
        )
