"""ClickHouse in this process: chDB, the engine of the demo, of a laptop and of the tests.

One process may hold a chDB directory at a time, so a lock file serialises processes. Results stream through
a FIFO that the engine writes, because its own streaming buffers a whole Parquet file.
"""

import fcntl
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as DriverError

from langfuse_worker import schema
from langfuse_worker.clickhouse.client import Address, ClickHouseError, Query, prepared
from langfuse_worker.clickhouse.limits import QueryLimits

CHUNK_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 600.0


class _Engine:
    """One chDB directory of this process: holds the lock file while any client is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._users = 0
        self._lock_fd = -1
        self._has_schema = False

    def acquire(self) -> None:
        with self._mutex:
            if self._users == 0:
                self._lock_fd = _lock(self.path)
            self._users += 1

    def apply_schema(self, client: Client) -> None:
        """Create the tables that are missing, once in a process."""
        with self._mutex:
            if not self._has_schema:
                for statement in schema.statements():
                    client.command(statement)
                self._has_schema = True

    def release(self) -> None:
        with self._mutex:
            self._users -= 1
            if self._users == 0:
                os.close(self._lock_fd)


_engines: dict[Path, _Engine] = {}
_engines_mutex = threading.Lock()


def _engine(path: Path) -> _Engine:
    with _engines_mutex:
        return _engines.setdefault(path, _Engine(path))


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise ClickHouseError(
                    f"another process has held the embedded engine at {path} for {_LOCK_TIMEOUT_S:.0f} s; "
                    "stop it, or set CLICKHOUSE_URL to a server"
                ) from None
            time.sleep(0.1)


class EmbeddedClickHouse:
    """The implementation of `ClickHouse` for chdb:// URLs.

    The engine is open while a query or a `hold` is; in between another process may have it.
    """

    def __init__(self, address: Address, limits: QueryLimits) -> None:
        self.limits = limits.on(os.cpu_count() or 1)
        self._address = address
        self._path = Path(unquote(urlsplit(address.url).path))

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A driver client of its own: a chDB handle takes one query at a time.

        Raises:
            ClickHouseError: another process holds the engine for too long.
        """
        engine = _engine(self._path)
        engine.acquire()
        try:
            with _errors():
                client = clickhouse_connect.get_client(
                    interface="chdb", path=str(self._path), database=self._address.database
                )
            try:
                engine.apply_schema(client)
                yield client
            finally:
                client.close()
        finally:
            engine.release()

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        """See `ClickHouse.rows`."""
        query = prepared(query, self.limits)
        with _errors(), self.client() as client:
            result = client.query(query.sql, parameters=dict(query.parameters), settings=dict(query.settings))
        return [tuple(row) for row in result.result_rows]

    def execute(self, query: Query, data: bytes | None = None) -> None:
        """See `ClickHouse.execute`."""
        query = prepared(query, self.limits)
        with _errors(), self.client() as client:
            client.command(query.sql, dict(query.parameters), data, dict(query.settings))

    @contextmanager
    def stream(self, query: Query, output_format: str) -> Iterator[Iterator[bytes]]:
        """See `ClickHouse.stream`."""
        query = prepared(query, self.limits)
        with tempfile.TemporaryDirectory(prefix="langfuse-fifo-") as directory, self.client() as client:
            fifo = os.path.join(directory, query.query_id)
            os.mkfifo(fifo)
            reading, held_open = _open_both_ends(fifo)
            writer = _Writer(client, query, fifo, output_format, held_open)
            writer.start()
            try:
                with open(reading, "rb", buffering=0) as pipe:
                    yield _chunks(pipe.read, writer)
            finally:
                if writer.is_alive():
                    self.kill(query.query_id)
                writer.join()

    def kill(self, query_id: str) -> None:
        """See `ClickHouse.kill`."""
        with suppress(DriverError, ClickHouseError), self.client() as client:
            # chDB takes no query ids and drops comments, but the name of the FIFO stays in the text.
            client.command(f"KILL QUERY WHERE query LIKE '%/{query_id}''%' ASYNC")

    def with_limits(self, limits: QueryLimits) -> Self:
        """See `ClickHouse.with_limits`."""
        return type(self)(self._address, limits)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `ClickHouse.hold`. Other processes wait meanwhile."""
        with self.client():
            yield

    def close(self) -> None:
        """See `ClickHouse.close`; nothing is open between queries."""


class _Writer(threading.Thread):
    """Runs the query with its result going into the FIFO."""

    def __init__(self, client: Client, query: Query, fifo: str, output_format: str, held_open: int) -> None:
        super().__init__(name=f"chdb-{query.query_id}", daemon=True)
        self._held_open = held_open
        self._client = client
        self._query = query
        self._fifo = fifo
        self._format = output_format
        self.error: DriverError | None = None

    def run(self) -> None:
        try:
            parameters, settings = dict(self._query.parameters), dict(self._query.settings)
            target = f"file('{self._fifo}', '{self._format}', 'auto', 'none')"  # auto: the query's
            self._client.command(
                f"INSERT INTO FUNCTION {target} {self._query.sql}",
                parameters=parameters,
                settings=settings,
            )
        except DriverError as error:
            self.error = error
        finally:
            os.close(self._held_open)


def _open_both_ends(fifo: str) -> tuple[int, int]:
    """Open a FIFO for reading, and for writing once, so that only closing the latter ends the stream.

    A query that fails before its first byte never opens the FIFO, and its reader would wait for ever.
    """
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY)
    os.set_blocking(reading, True)
    return reading, writing


def _chunks(read: Callable[[int], bytes], writer: _Writer) -> Iterator[bytes]:
    while chunk := read(CHUNK_BYTES):
        yield chunk
    writer.join()
    if writer.error is not None:
        raise ClickHouseError(str(writer.error), _code(writer.error)) from writer.error


def _code(error: DriverError) -> int | None:
    if error.code is not None:
        return error.code
    found = re.search(r"Code: (\d+)", str(error))
    return int(found[1]) if found else None


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        raise ClickHouseError(str(error), _code(error)) from error
