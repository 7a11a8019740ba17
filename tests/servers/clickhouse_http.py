"""ClickHouse's HTTP interface over chDB, ClickHouse's real engine, as a process of its own.

It has one user, and fails on demand; see `clickhouse_engine` for what runs queries.
"""

import argparse
import base64
import json
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from chdb.state.sqlitelike import Connection

from langfuse_worker import schema
from tests.servers.clickhouse_engine import Engine, Execution, QueryFailed, query

# Data that follows an INSERT goes to the engine as a file, for it need not be text.
_INSERT = re.compile(rb"\s*(INSERT INTO .*?)\s+FORMAT\s+(\w+)\s*\n", re.IGNORECASE | re.DOTALL)


@dataclass
class Fault:
    """Something that goes wrong with the next requests whose SQL contains `match`.

    Attributes:
        kind: `refuse` answers `status` with `code`; `cut` closes the connection in the body; `truncate` ends
            the body early and properly; `exception` appends ClickHouse's exception to the body, as 25.11 and
            later frame it if `tagged`, else as older versions did; `stall` stops sending until cleared.
        code: ClickHouse's error code, by default of a query that somebody has cancelled.
        start_ms: only of windows that begin then, milliseconds since the epoch; None for any.
        after_bytes: bytes of the body that still arrive.
        times: how many requests; -1 for all of them.
    """

    kind: str
    match: str = ""
    start_ms: int | None = None
    after_bytes: int = 0
    times: int = 1
    code: int = 394
    status: int = 500
    tagged: bool = True
    message: str = "refused by the test"

    def hits(self, sql: str, parameters: Mapping[str, str]) -> bool:
        """Whether a query is one of those that go wrong."""
        is_of_window = self.start_ms is None or parameters.get("param_start_ms") == str(self.start_ms)
        return self.times != 0 and self.match in sql and is_of_window


@dataclass
class Request:
    """One query as it arrived."""

    sql: str
    parameters: dict[str, str]
    user: str
    client: str


@dataclass
class State:
    """What the handler threads share."""

    engine: Engine
    user: str
    password: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def fault_for(self, sql: str, parameters: Mapping[str, str]) -> Fault | None:
        """The fault that hits this query, if any; counts it."""
        with self.lock:
            for fault in self.faults:
                if fault.hits(sql, parameters):
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
        fault = self.state.fault_for(sql, parameters)
        if fault and fault.kind == "refuse":
            return self._refuse(fault.code, fault.message, fault.status)
        try:
            self._run(Execution(self.state.engine, sql, parameters, data), fault)
        except QueryFailed as error:
            code = re.search(r"Code: (\d+)", str(error))
            self._refuse(int(code[1]) if code else 1002, str(error), 500)
        return None

    def _run(self, execution: Execution, fault: Fault | None) -> None:
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


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


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
    Handler.state = State(Engine(options.path, options.users), options.user, options.password)
    is_new = not os.path.exists(options.path)
    kept_open = Connection(Handler.state.engine.connection_string)
    for statement in schema.statements() if is_new else ():
        query(kept_open, statement, "TabSeparated", {})
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
