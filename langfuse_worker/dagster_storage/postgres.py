"""Postgres: an instance of several machines."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.events.log import EventLogEntry
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log import AssetKeyTable
from dagster._core.storage.event_log.migration import ASSET_KEY_INDEX_COLS
from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.auth import PgTokenProvider
from dagster_postgres.utils import create_pg_connection
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.engine import Connection

from langfuse_worker.dagster_storage.backfills import CancellingRunStorage
from langfuse_worker.dagster_storage.checks import OncePlannedChecks
from langfuse_worker.dagster_storage.connections import KeptConnections, OfAddress
from langfuse_worker.dagster_storage.transactions import OpenTransactions

_NAME = "postgres"


class AssetEntries(threading.local):
    """What a transaction of this thread will write of assets, once: the newest of each column."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Any]] = {}

    def add(self, asset_key: str, entry: Mapping[str, Any]) -> None:
        """Have columns of an asset's row written, as Dagster's storage would at once."""
        self._entries.setdefault(asset_key, {}).update(entry)

    @contextmanager
    def collected(self) -> Iterator[Mapping[str, Mapping[str, Any]]]:
        """The entries of this block, by asset key."""
        self._entries = {}
        try:
            yield self._entries
        finally:
            self._entries = {}


def _upsert(asset_key: str, entry: Mapping[str, Any]) -> Insert:
    insert = postgresql.insert(AssetKeyTable).values(asset_key=asset_key, **entry)
    if not entry:
        return insert.on_conflict_do_nothing()
    return insert.on_conflict_do_update(index_elements=[AssetKeyTable.c.asset_key], set_=dict(entry))


class PostgresEventLog(OncePlannedChecks, KeptConnections, PostgresEventLogStorage):
    """Dagster's event log in Postgres. A batch of events is one connection and one transaction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Args: those of `KeptConnections`."""
        self._open = OpenTransactions()
        self._assets = AssetEntries()
        super().__init__(*args, **kwargs)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of a run in one transaction."""
        with self.transaction(events[0].run_id):
            super().store_event_batch(events)

    @contextmanager
    def transaction(self, run_id: str) -> Iterator[None]:
        """See `TransactionalEventLog`; the transaction takes whatever this thread stores."""
        with create_pg_connection(self._engine) as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin(), self._open.hold(_NAME, connection), self._assets.collected() as assets:
                yield
                # In an order that all transactions keep: the daemon plans what runs record, and would wait
                # for a run that waits for it.
                for asset_key, entry in sorted(assets.items()):
                    connection.execute(_upsert(asset_key, entry))

    def _store_asset_event(self, conn: Connection, event: EventLogEntry, event_id: int) -> None:
        asset_key = event.dagster_event.asset_key if event.dagster_event else None
        if asset_key is None or not self._open.get(_NAME):
            super()._store_asset_event(conn, event, event_id)
            return
        entry = self._get_asset_entry_values(event, event_id, self.has_secondary_index(ASSET_KEY_INDEX_COLS))
        self._assets.add(asset_key.to_string(), entry)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if connection := self._open.get(_NAME):
            yield connection
            return
        with create_pg_connection(self._engine) as connection:
            yield connection


class PostgresRuns(CancellingRunStorage, KeptConnections, PostgresRunStorage):
    """Dagster's runs and backfills in Postgres."""


class PostgresSchedules(KeptConnections, PostgresScheduleStorage):
    """Dagster's schedules and sensors in Postgres."""


class PostgresStorage(OfAddress, DagsterPostgresStorage):
    """Dagster's storage in Postgres with these three; tables are Dagster's own.

    An instance may also name the three by themselves, as that of Dagster's Helm chart does.

    Args:
        postgres_url: an address that SQLAlchemy takes.
        should_autocreate_tables: whether tables that are missing are made.
        inst_data: how Dagster makes this object again in another process.
        token_provider: gives the password of each connection; without it, it is that of the address.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
        token_provider: PgTokenProvider | None = None,
    ) -> None:
        # Not Dagster's own constructor: it connects once for each of its parts, and would do so for nothing.
        DagsterStorage.__init__(self)
        self.postgres_url = postgres_url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        given = (postgres_url, should_autocreate_tables, None, token_provider)
        self._event_log_storage = PostgresEventLog(*given)
        self._run_storage = PostgresRuns(*given)
        self._schedule_storage = PostgresSchedules(*given)
