"""ClickHouse over HTTP, through clickhouse-connect; result bytes pass through untouched."""

import http.client
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import clickhouse_connect
import structlog
import urllib3
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as DriverError
from clickhouse_connect.driver.httputil import get_pool_manager_options

from langfuse_worker.clickhouse.client import Address, ClickHouseError, Query, prepared
from langfuse_worker.clickhouse.limits import QueryComment, QueryLimits
from langfuse_worker.clickhouse.profiles import WHATEVER_THE_PROFILE

log = structlog.get_logger()

CHUNK_BYTES = 1 << 20
# The server's own default, whatever profiles and queries say: 'auto(8)', in quotes on older releases.
_DEFAULT_THREADS = "SELECT default FROM system.settings WHERE name = 'max_threads'"
_AUTO = re.compile(r"auto\((\d+)\)")
# What the analyzer adds of an unknown name: the whole query, before what may have been meant.
_SCOPE = re.compile(r" In scope .*?(?=\. Maybe you meant|\. \([A-Z_]+\)|$)", re.DOTALL)
_KEPT_BYTES = 16 << 10  # ClickHouse cuts the message that it appends to a broken stream at 16 KiB

_TRANSPORT = {
    # A proxy that sees no byte for minutes would drop a query that is still sorting.
    "send_progress_in_http_headers": "1",
    "http_headers_progress_interval_ms": "10000",
    "cancel_http_readonly_queries_on_client_close": "1",
}


class _LimitedPool(urllib3.PoolManager):
    """Adds the limits to every request of the driver, its own handshake queries included."""

    def __init__(self, limits: QueryLimits) -> None:
        super().__init__(**get_pool_manager_options(maxsize=32))
        comment = str(QueryComment(purpose="handshake"))
        self._defaults = {**WHATEVER_THE_PROFILE, **limits.settings(), "log_comment": comment}

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> urllib3.BaseHTTPResponse:
        """Send one request; a setting that the request carries itself is left alone."""
        parts = urlsplit(url)
        if parts.path == "/ping":
            return super().request(method, url, *args, **kwargs)
        present = parse_qs(parts.query, keep_blank_values=True)
        missing = {name: value for name, value in self._defaults.items() if name not in present}
        joiner = "&" if parts.query else "?"
        return super().request(method, f"{url}{joiner}{urlencode(missing)}", *args, **kwargs)


class _Connection:
    """The driver's client, made on first use and shared by every set of limits."""

    def __init__(self, address: Address, limits: QueryLimits) -> None:
        self.address = address
        self._limits = limits
        self._lock = threading.Lock()
        self._opened: Client | None = None
        self._cores: int | None = None

    def client(self) -> Client:
        with self._lock:
            if self._opened is None:
                opened = self._open()
                self._cores = _cores(opened)
                self._opened = opened
            return self._opened

    def within(self, limits: QueryLimits) -> QueryLimits:
        """The limits on this server, as far as it says how many cores it has."""
        self.client()
        return limits if self._cores is None else limits.on(self._cores)

    def _open(self) -> Client:
        parts = urlsplit(self.address.url)
        secure = parts.scheme == "https"
        return clickhouse_connect.get_client(
            host=parts.hostname or "localhost",
            port=parts.port or (8443 if secure else 8123),
            secure=secure,
            username=self.address.user,
            password=self.address.password,
            database=self.address.database,
            # Threads share the client, and a ClickHouse session takes one query at a time.
            autogenerate_session_id=False,
            compress=False,
            # The server enforces max_execution_time; the socket only has to outlast it.
            send_receive_timeout=self._limits.max_execution_time_s + 5,
            client_name="langfuse-export",
            pool_mgr=self._pool,
        )

    @cached_property
    def _pool(self) -> _LimitedPool:
        """One, however often the server does not answer and is tried again.

        The driver remembers pools until the process ends, and with them their sockets.
        """
        pool = _LimitedPool(self._limits)
        weakref.finalize(self, pool.clear)
        return pool

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None


def _cores(client: Client) -> int | None:
    found = _AUTO.search(str(client.query(_DEFAULT_THREADS).result_rows))
    return int(found[1]) if found else None


class HttpClickHouse:
    """The implementation of `ClickHouse` for http:// and https:// URLs."""

    def __init__(self, address: Address, limits: QueryLimits, connection: _Connection | None = None) -> None:
        self.limits = limits
        self._address = address
        self._connection = connection or _Connection(address, limits)

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        """See `ClickHouse.rows`."""
        query = self._prepared(query)
        with self._answer_to(query):
            result = self._connection.client().query(
                query.sql,
                parameters=dict(query.parameters),
                settings={**query.settings, "query_id": query.query_id},
            )
        return [tuple(row) for row in result.result_rows]

    @contextmanager
    def stream(self, query: Query, output_format: str) -> Iterator[Iterator[bytes]]:
        """See `ClickHouse.stream`."""
        query = self._prepared(query)
        with self._answer_to(query):
            response = self._connection.client().raw_stream(
                query.sql,
                parameters=dict(query.parameters),
                settings={**query.settings, **_TRANSPORT, "query_id": query.query_id},
                fmt=output_format,
            )
        assert isinstance(response, urllib3.HTTPResponse)
        body = _Body(response)
        try:
            yield self._translated(body.chunks())
        finally:
            if not body.finished:
                self.kill(query.query_id)
            response.close()

    def execute(self, query: Query, data: bytes | None = None) -> None:
        """See `ClickHouse.execute`."""
        query = self._prepared(query)
        with self._errors():
            self._connection.client().command(
                query.sql,
                parameters=dict(query.parameters),
                data=data,
                settings={**query.settings, **_TRANSPORT, "query_id": query.query_id},
            )

    def kill(self, query_id: str) -> None:
        """See `ClickHouse.kill`."""
        try:
            self.rows(
                Query(
                    "KILL QUERY WHERE query_id = {id:String} ASYNC",
                    QueryComment(purpose="kill"),
                    {"id": query_id},
                )
            )
        except ClickHouseError as error:
            log.warning("clickhouse_kill_failed", queryId=query_id, error=str(error))

    def with_limits(self, limits: QueryLimits) -> Self:
        """See `ClickHouse.with_limits`."""
        return type(self)(self._address, limits, self._connection)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `ClickHouse.hold`; connections are kept alive anyway."""
        yield

    def close(self) -> None:
        """See `ClickHouse.close`."""
        self._connection.close()

    def _prepared(self, query: Query) -> Query:
        with self._errors():
            return prepared(query, self._connection.within(self.limits))

    @contextmanager
    def _answer_to(self, query: Query) -> Iterator[None]:
        """As `_errors`; the query is killed if somebody stops this process meanwhile."""
        try:
            with self._errors():
                yield
        except Exception:
            raise
        except BaseException:
            self.kill(query.query_id)
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DriverError as error:
            raise ClickHouseError(self._message(error), error.code) from error
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise ClickHouseError(self._message(error)) from error

    def _translated(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Errors of the reading side alone: what the consumer of the chunks raises is its own."""
        with self._errors():
            yield from chunks

    def _message(self, error: Exception) -> str:
        text = _SCOPE.sub("", str(_reason(error))) or type(error).__name__
        return f"ClickHouse at {self._address.shown}: {text[:2000]}"


def _reason(error: Exception) -> BaseException:
    """What lies below the driver's retries, whose message repeats the whole URL."""
    retries = error.__cause__ or error.__context__
    if isinstance(retries, urllib3.exceptions.MaxRetryError) and retries.reason is not None:
        return retries.reason
    return error


class _Body:
    """The bytes of one response, with ClickHouse's mid-stream exception recognised on every version."""

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response
        self.finished = False

    @cached_property
    def _tag(self) -> bytes | None:
        """From 25.11 on, the random tag that frames an exception in the body."""
        tag = self._response.headers.get("X-ClickHouse-Exception-Tag")
        return tag.encode() if tag else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body; raise `ClickHouseError` instead of an exception's text where it is tagged."""
        tail = b""
        try:
            for chunk in self._read():
                yield chunk
                tail = (tail + chunk)[-_KEPT_BYTES:] if len(chunk) < _KEPT_BYTES else chunk[-_KEPT_BYTES:]
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
            self._raise_exception_in(tail)
            raise
        self._raise_exception_in(tail)
        self.finished = True

    def _read(self) -> Iterator[bytes]:
        return self._response.stream(CHUNK_BYTES, decode_content=False)

    def _raise_exception_in(self, tail: bytes) -> None:
        if self._tag is None:
            return
        _, marker, framed = tail.partition(b"__exception__\r\n" + self._tag + b"\r\n")
        if marker:
            message = framed.partition(b"\n")[0].decode(errors="replace")
            code = re.search(r"Code: (\d+)", message)
            raise ClickHouseError(message, int(code[1]) if code else None)
