"""Which transactions of an event log are open, so that what is written meanwhile joins them."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, runtime_checkable

import dagster as dg
from sqlalchemy.engine import Connection


class OpenTransactions(threading.local):
    """Connections of this thread that are in a transaction, by the name of their database."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}

    def get(self, name: str) -> Connection | None:
        """The connection, if one is open."""
        return self._connections.get(name)

    @contextmanager
    def hold(self, name: str, connection: Connection) -> Iterator[None]:
        """Have `get` find the connection in this block."""
        self._connections[name] = connection
        try:
            yield
        finally:
            del self._connections[name]


@runtime_checkable
class TransactionalEventLog(Protocol):
    """An event log that can write many events of a run at once."""

    def transaction(self, run_id: str) -> AbstractContextManager[None]:
        """Have what this thread stores of the run in this block stored together, or none of it."""
        ...


def one_transaction(instance: dg.DagsterInstance, run_id: str) -> AbstractContextManager[None]:
    """A block whose events of the run are stored together, where the instance's event log can do that."""
    event_log = instance.event_log_storage
    return event_log.transaction(run_id) if isinstance(event_log, TransactionalEventLog) else nullcontext()
