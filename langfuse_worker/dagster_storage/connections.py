"""Connections to Dagster's Postgres, which all storages of a process share and keep."""

import threading

from dagster_postgres.auth import PgTokenProvider
from dagster_postgres.utils import create_pg_engine
from sqlalchemy.engine import Engine

# Dagster's daemon has about so many threads that ask at once; a run has one.
_KEPT = 5
# Firewalls and NAT forget connections that are idle for some minutes, without telling either end.
_RECYCLE_S = 180

_engines: dict[str, Engine] = {}
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


def is_open(postgres_url: str) -> bool:
    """Whether this process has worked with the address before."""
    return postgres_url in _engines
