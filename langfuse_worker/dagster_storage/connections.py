"""Connections to Dagster's Postgres, which all storages of a process share and keep."""

import threading
from typing import Any

from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres.auth import PgTokenProvider
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from sqlalchemy.engine import Engine

# Dagster's daemon has about so many threads that ask at once; a run has one.
_KEPT = 5
# Firewalls and NAT forget connections that are idle for some minutes, without telling either end.
_RECYCLE_S = 180

_engines: dict[str, Engine] = {}
_with_tables: set[tuple[type, str]] = set()
_lock = threading.Lock()


def shared_engine(postgres_url: str, token_provider: PgTokenProvider | None) -> Engine:
    """The process's engine for the address, which keeps its connections.

    Dagster's own storage connects anew for each statement, because a process may have many instances of
    Dagster and each would keep connections of its own: here they are the process's. A connection with a
    password costs Postgres more than 10 ms of CPU, a statement a fraction of one.

    Args:
        postgres_url: an address that SQLAlchemy takes.
        token_provider: gives the password of each connection; that of the first call for an address is asked.
    """
    with _lock:
        if postgres_url not in _engines:
            _engines[postgres_url] = create_pg_engine(
                postgres_url,
                token_provider,
                isolation_level="AUTOCOMMIT",
                pool_size=_KEPT,
                max_overflow=-1,
                pool_recycle=_RECYCLE_S,
                pool_pre_ping=True,
            )
        return _engines[postgres_url]


class OfAddress(ConfigurableClass):
    """What Dagster makes from an address in `dagster.yaml`. It comes before Dagster's class.

    Dagster's own parts would make Dagster's class, whatever class was asked.
    """

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Any:
        """See Dagster's `ConfigurableClass`."""
        return cls(
            pg_url_from_config(config_value),  # pyright: ignore[reportCallIssue]
            config_value.get("should_autocreate_tables", True),
            inst_data,
            get_token_provider_from_config(config_value),
        )


class KeptConnections(OfAddress):
    """What makes a part of Dagster's storage in Postgres use the connections of its process.

    It comes before Dagster's class of that part.

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
        part = (type(self), postgres_url)
        # Looked for once in a process: code servers open a storage for each tick.
        looks_for_tables = should_autocreate_tables and part not in _with_tables
        super().__init__(postgres_url, looks_for_tables, inst_data, token_provider)  # pyright: ignore[reportCallIssue]
        _with_tables.add(part)
        self._engine = shared_engine(postgres_url, token_provider)
