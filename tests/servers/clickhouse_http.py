"""ClickHouse's HTTP interface over chDB, ClickHouse's real engine, as a process of its own.

What chDB cannot do is added here: users, streamed results (the engine writes into a FIFO that is named by the
query id), `KILL QUERY` by that id, and faults on demand.
"""

import argparse
import base64
import fcntl
import json
import os
import re
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from chdb.state.sqlitelike import Connection

from langfuse_worker import schema

CHUNK_BYTES = 256 << 10
_F_SETPIPE_SZ = 1031
# Of the HTTP interface itself; everything else in the query string is a setting.
_NOT_SETTINGS = {"query", "database", "query_id", "user", "password", "session_id", "client_protocol_version"}
_NOT_SETTINGS |= {"buffer_size", "wait_end_of_query", "compress", "decompress", "role", "quota_key"}
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
# Data that follows an INSERT goes to the engine as a file, for it need not be text.
_INSERT = re.compile(rb"\s*(INSERT INTO .*?)\s+FORMAT\s+(\w+)\s*\n", re.IGNORECASE | re.DOTALL)
_STREAMED = {"Parquet", "JSONEachRow", "CSVWithNames", "Arrow", "ArrowStream"}
_CONFIG = """<clickhouse>
  <query_log><database>system</database><table>query_log</table>
  <flush_interval_milliseconds>500</flush_interval_milliseconds></query_log>
  {users}
</clickhouse>"""
_USERS = "<user_directories><users_xml><path>{path}</path></users_xml></user_directories>"
# An answer is made of blocks as they come; an INSERT would first gather 256 MB of them.
_BLOCKS_AS_THEY_COME = "SET min_insert_block_size_rows = 1, min_insert_block_size_bytes = 1"
# The engine's own ids, replaced by those of the requests, which are in the names of the FIFOs and objects.
_QUERY_LOG = (
    "(SELECT * REPLACE (if(startsWith(query, 'INSERT INTO FUNCTION '), "
    "extract(query, '/([^/\\']+)\\','), query_id) AS query_id) FROM system.query_log)"
)


@dataclass
class Fault:
    """Something that goes wrong with the next requests whose SQL contains `match`.

    Attributes:
        kind: `refuse` answers `status` with `code`; `cut` closes the connection in the body; `truncate` ends
            the body early and properly; `exception` appends ClickHouse's exception to the body, as 25.11 and
            later frame it if `tagged`, else as older versions did; `stall` stops sending until cleared.
        code: ClickHouse's error code, by default of a query that somebody has cancelled.
        after_bytes: bytes of the body that still arrive.
        times: how many requests; -1 for all of them.
    """

    kind: str
    match: str = ""
    after_bytes: int = 0
    times: int = 1
    code: int = 394
    status: int = 500
    tagged: bool = True
    message: str = "refused by the test"


@dataclass
class Request:
    """One query as it arrived."""

    sql: str
    parameters: dict[str, str]
    user: str
    client: str


class QueryFailed(Exception):
    """The engine's error text."""


@dataclass
class State:
    """What the handler threads share."""

    path: str
    user: str
    password: str
    users: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def connection_string(self) -> str:
        config = Path(self.path).with_suffix(".xml")
        config.write_text(_CONFIG.format(users=_USERS.format(path=self.users) if self.users else ""))
        return f"{self.path}?config-file={config}"

    def fault_for(self, sql: str) -> Fault | None:
        """The fault that hits this query, if any; counts it."""
        with self.lock:
            for fault in self.faults:
                if fault.match in sql and fault.times != 0:
                    fault.times -= fault.times > 0
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """One HTTP connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written apart, and would wait for each other
    state: ClassVar[State]

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path == "/ping":
            return self._answer(200, b"Ok.\n")
        if self.path == "/_test/requests":
            body = json.dumps([asdict(request) for request in self.state.requests])
            return self._answer(200, body.encode())
        return self._query(b"")

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/_test/faults":
            with self.state.changed:
                self.state.faults = [Fault(**fault) for fault in json.loads(body)]
                self.state.changed.notify_all()
            return self._answer(200, b"")
        return self._query(body)

    def _query(self, body: bytes) -> None:
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        whole = b"\n".join(part for part in (parameters.get("query", "").encode(), body) if part)
        insert = _INSERT.match(whole)
        data = whole[insert.end() :] if insert else b""
        sql = whole[: insert.end()].decode().rstrip() if insert else whole.decode()
        user, password = self._credentials(parameters)
        client = self.headers.get("User-Agent", "")
        self.state.requests.append(Request(sql, parameters, user, client))
        if (user, password) != (self.state.user, self.state.password):
            return self._refuse(516, f"{user}: Authentication failed: password is incorrect", 403)
        fault = self.state.fault_for(sql)
        if fault and fault.kind == "refuse":
            return self._refuse(fault.code, fault.message, fault.status)
        try:
            self._run(Execution(self.state, sql, parameters, data), fault)
        except QueryFailed as error:
            code = re.search(r"Code: (\d+)", str(error))
            self._refuse(int(code[1]) if code else 1002, str(error), 500)
        return None

    def _run(self, execution: "Execution", fault: Fault | None) -> None:
        if not execution.is_streamed:
            if fault and fault.kind == "stall":
                with self.state.changed:
                    self.state.changed.wait_for(lambda: fault not in self.state.faults)
            result = execution.result()
            if fault and fault.kind == "cut":  # it has happened, and nobody is told
                self.close_connection = True
                self.connection.close()
                return None
            return self._answer(200, result)
        with execution.stream() as chunks:
            first = next(chunks, b"")  # an error before the first byte is an HTTP status
            tag = secrets.token_hex(8)
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            if fault is None or fault.tagged:
                self.send_header("X-ClickHouse-Exception-Tag", tag)
            self.end_headers()
            try:
                self._send_body(_joined(first, chunks), fault, tag)
            except QueryFailed as error:
                self._send_exception(str(error), tag)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
        return None

    def _send_body(self, chunks: Iterator[bytes], fault: Fault | None, tag: str) -> None:
        sent = 0
        for chunk in chunks:
            if fault and sent + len(chunk) > fault.after_bytes:
                self._chunk(chunk[: fault.after_bytes - sent])
                return self._break(fault, tag, chunk[fault.after_bytes - sent :])
            self._chunk(chunk)
            sent += len(chunk)
        if fault:
            return self._break(fault, tag, b"")
        self._end()
        return None

    def _break(self, fault: Fault, tag: str, rest: bytes) -> None:
        if fault.kind == "truncate":
            return self._end()
        if fault.kind == "exception":
            message = f"Code: {fault.code}. DB::Exception: broken by the test. (TEST)"
            return self._send_exception(message, tag) if fault.tagged else self._send_plain(message)
        if fault.kind == "stall":
            self.wfile.flush()
            with self.state.changed:
                self.state.changed.wait_for(lambda: fault not in self.state.faults)
        self.close_connection = True
        self.connection.close()
        return None

    def _send_plain(self, message: str) -> None:
        self._chunk(message.encode())
        self._end()

    def _send_exception(self, message: str, tag: str) -> None:
        """As documented under `Exception handling` of ClickHouse's HTTP interface, 25.11."""
        text = message.strip() + "\n"
        frame = f"\r\n__exception__\r\n{tag}\r\n{text}{len(text)} {tag}\r\n__exception__\r\n"
        self._chunk(frame.encode())
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()  # without the last chunk

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: int, message: str, status: int) -> None:
        text = message if message.startswith("Code:") else f"Code: {code}. DB::Exception: {message}"
        self._answer(status, text.encode(), {"X-ClickHouse-Exception-Code": str(code)})

    def _credentials(self, parameters: dict[str, str]) -> tuple[str, str]:
        if "X-ClickHouse-User" in self.headers:
            return self.headers["X-ClickHouse-User"], self.headers.get("X-ClickHouse-Key", "")
        basic = self.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(basic).decode().partition(":")
        return user or parameters.get("user", "default"), password or parameters.get("password", "")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class Execution:
    """One query on a connection of its own, so that its settings are its own."""

    def __init__(self, state: State, sql: str, parameters: dict[str, str], data: bytes) -> None:
        self._data = data
        self._connection_string = state.connection_string
        format_clause = _FORMAT.search(sql)
        self._format = format_clause[1] if format_clause else "TabSeparated"
        self._sql = _FORMAT.sub("", sql) if format_clause else sql
        if "KILL QUERY" in sql:
            by_fifo = "query LIKE '%/' || {id:String} || '\\'%' AND query NOT LIKE 'KILL%'"
            self._sql = self._sql.replace("query_id = {id:String}", by_fifo)
        if "query_id IN" in sql:
            self._sql = self._sql.replace("system.query_log", _QUERY_LOG)
        self._parameters = {k[6:]: v for k, v in parameters.items() if k.startswith("param_")}
        self._settings = {
            k: v for k, v in parameters.items() if k not in _NOT_SETTINGS and not k.startswith("param_")
        }
        self._database = parameters.get("database")
        self._query_id = parameters.get("query_id", "result")
        self._may_write_files = not state.users

    @property
    def is_streamed(self) -> bool:
        # A user of the product's own may not write into a FIFO: its queries run as they are, and whole.
        is_select = self._sql.lstrip().upper().startswith(("SELECT", "WITH"))
        return is_select and self._format in _STREAMED and self._may_write_files

    def result(self) -> bytes:
        """The whole result. Raises QueryFailed."""
        with self._connection() as connection:
            if self._data:
                with tempfile.NamedTemporaryFile() as file:
                    file.write(self._data)
                    file.flush()
                    target, *settings = re.split(r"(?=\sSETTINGS\s)", self._sql, maxsplit=1)
                    sql = f"{target} FROM INFILE '{file.name}' {''.join(settings)} FORMAT {self._format}"
                    return _query(connection, sql, "TabSeparated", self._parameters)
            return _query(connection, self._sql, self._format, self._parameters)

    @contextmanager
    def stream(self) -> Iterator[Iterator[bytes]]:
        """The result as the engine writes it; raises QueryFailed where it breaks."""
        with tempfile.TemporaryDirectory() as directory, self._connection() as connection:
            _query(connection, _BLOCKS_AS_THEY_COME, "TabSeparated", {})
            fifo = os.path.join(directory, self._query_id)
            os.mkfifo(fifo)
            reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            writing = os.open(fifo, os.O_WRONLY)  # held open, so that only closing it ends the stream
            os.set_blocking(reading, True)
            fcntl.fcntl(reading, _F_SETPIPE_SZ, CHUNK_BYTES)
            errors: list[QueryFailed] = []

            def write() -> None:
                try:
                    _query(connection, self._into(connection, fifo), "TabSeparated", self._parameters)
                except QueryFailed as error:
                    errors.append(error)
                finally:
                    os.close(writing)

            def chunks() -> Iterator[bytes]:
                while chunk := os.read(reading, CHUNK_BYTES):
                    yield chunk
                writer.join()
                if errors:
                    raise errors[0]

            writer = threading.Thread(target=write)
            writer.start()
            try:
                yield chunks()
            finally:
                os.close(reading)  # the engine's next write fails
                writer.join()

    def _into(self, connection: Connection, fifo: str) -> str:
        described = _query(
            connection,
            f"DESCRIBE ({self._sql})",
            "TSVRaw",
            self._parameters,
        )
        columns = [line.split("\t")[:2] for line in described.decode().splitlines()]
        structure = ", ".join(f"`{name}` {kind}" for name, kind in columns).replace("'", "\\'")
        target = f"file('{fifo}', '{self._format}', '{structure}', 'none')"
        return f"INSERT INTO FUNCTION {target} {self._sql}"

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = Connection(self._connection_string)
        try:
            if self._database:
                _query(connection, f"USE `{self._database}`", "TabSeparated", {})
            if self._settings:
                clause = ", ".join(f"{k} = {_quoted(v)}" for k, v in self._settings.items())
                _query(connection, f"SET {clause}", "TabSeparated", {})
            yield connection
        finally:
            connection.close()


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _query(connection: Connection, sql: str, output_format: str, parameters: dict[str, str]) -> bytes:
    try:
        return connection.query(sql, output_format, params=parameters).bytes()
    except Exception as error:  # chDB raises RuntimeError and its own types
        raise QueryFailed(str(error)[str(error).find("Code:") :]) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _exit_with_parent() -> None:
    sys.stdin.read()  # a pipe that the parent never writes to and closes when it ends
    os._exit(0)


def main() -> None:
    """Serve until killed; prints the port when ready."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--path", required=True)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--user", default="default")
    arguments.add_argument("--password", default="")
    arguments.add_argument("--users", default="", help="a users.xml; what is in it decides who may what")
    options = arguments.parse_args()
    Handler.state = State(options.path, options.user, options.password, options.users)
    is_new = not os.path.exists(options.path)
    kept_open = Connection(Handler.state.connection_string)
    for statement in schema.statements() if is_new else ():
        _query(kept_open, statement, "TabSeparated", {})
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
