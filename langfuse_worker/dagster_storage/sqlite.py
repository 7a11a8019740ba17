"""SQLite: an instance on one machine."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._core.events.log import EventLogEntry
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from langfuse_worker.dagster_storage.backfills import CancellingRunStorage
from langfuse_worker.dagster_storage.checks import OncePlannedChecks
from langfuse_worker.dagster_storage.transactions import OpenTransactions

# Each run has a database of its own; the index is one more.
_DATABASES = 8


class SqliteEventLog(OncePlannedChecks, SqliteEventLogStorage):
    """Dagster's event log in SQLite. Its connections stay open, and a batch of events is one transaction."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._open = OpenTransactions()
        self._has_index_columns: bool | None = None
        super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of a run in one transaction."""
        with self.transaction(events[0].run_id):
            super().store_event_batch(events)

    @contextmanager
    def transaction(self, run_id: str) -> Iterator[None]:
        """See `TransactionalEventLog`; one transaction of the run's database, and one of the index."""
        with (
            self._connect(run_id) as run,
            self._open.hold(run_id, run),
            self._connect(INDEX_SHARD_NAME) as index,
            self._open.hold(INDEX_SHARD_NAME, index),
        ):
            yield

    def _has_asset_key_index_cols_on_connection(self, conn: Connection) -> bool:
        # Asked for each event; only a migration changes it, and processes start anew after that.
        if self._has_index_columns is None:
            self._has_index_columns = super()._has_asset_key_index_cols_on_connection(conn)
        return self._has_index_columns

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if connection := self._open.get(shard):
            yield connection
            return
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def _engine(self, shard: str) -> Engine:
        """The database's engine, which keeps its connection; that of the longest unused one is closed."""
        engine = self._engines.pop(shard, None)
        if engine is None:
            options = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
            url = self.conn_string_for_shard(shard)
            engine = create_engine(url, poolclass=QueuePool, pool_size=1, connect_args=options)
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        self._engines[shard] = engine
        while len(self._engines) > _DATABASES:
            self._engines.popitem(last=False)[1].dispose()
        return engine


class SqliteRuns(CancellingRunStorage, SqliteRunStorage):
    """Dagster's runs and backfills in SQLite."""


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's storage in SQLite with that event log; `base_dir` and its files are Dagster's own."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not Dagster's own constructor: it opens its own event log and runs, which would be for nothing.
        DagsterStorage.__init__(self)
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._event_log_storage = SqliteEventLog(str(Path(base_dir) / "history" / "runs"))
        self._run_storage = SqliteRuns.from_local(str(Path(base_dir) / "history"))
        self._schedule_storage = SqliteScheduleStorage.from_local(str(Path(base_dir) / "schedules"))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "SqliteStorage":
        """See Dagster's `ConfigurableClass`."""
        return cls.from_local(config_value["base_dir"], inst_data)
