"""A forward proxy on loopback through which stores are reached that a user has chosen.

A check of the endpoint alone does not hold: its name may resolve to something else a moment later, and a
server may redirect. So the client's every connection goes through here, where the name is resolved once, each
address is checked, and exactly that address is connected to. Bytes pass without Python seeing them.
"""

import base64
import fcntl
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from langfuse_worker.endpoints import AllowList, EndpointError, EndpointReason, resolve, validate_endpoint
from langfuse_worker.settings import settings

log = structlog.get_logger()

_ACCEPT_AGAIN_S = 0.1
_CONNECT_TIMEOUT_S = 10
_HEAD_TIMEOUT_S = 30
_MAX_HEAD_BYTES = 64 << 10
_PIPE_BYTES = 1 << 20


class Guard:
    """One store's way through the gate of this process; remembers what was refused to it."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(16)
        self._refusal: EndpointError | None = None

    def check(self, endpoint: str) -> None:
        """Check an endpoint before it is used. Raises EndpointError."""
        validate_endpoint(endpoint, _allow_list())

    @property
    def proxy_url(self) -> str:
        """What an HTTP client has to use as its proxy."""
        return _gate(_allow_list()).admit(self._token, self)

    def take_refusal(self) -> EndpointError | None:
        """The last refusal since somebody asked, if nothing has been connected to after it."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def remember(self, refusal: EndpointError | None) -> None:
        """Note the outcome of a connection."""
        self._refusal = refusal


def _allow_list() -> AllowList:
    return AllowList.from_settings(settings())


class Gate:
    """The proxy: CONNECT, and plain requests one to a connection. Lets in only whom it has admitted."""

    def __init__(self, allow_list: AllowList) -> None:
        self._allow_list = allow_list
        self._guards: WeakValueDictionary[str, Guard] = WeakValueDictionary()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, name="endpoint-gate", daemon=True).start()

    def admit(self, token: str, guard: Guard) -> str:
        """The proxy's URL for a guard, for as long as it lives."""
        self._guards[token] = guard
        return f"http://{token}:@127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                threading.Thread(
                    target=self._serve, args=(client,), name="endpoint-gate", daemon=True
                ).start()
            except (OSError, RuntimeError) as error:  # no descriptors or threads are left, for now
                log.warning("endpoint_gate_waits", error=str(error))
                time.sleep(_ACCEPT_AGAIN_S)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):  # of which the client hears by its connection's end
            client.settimeout(_HEAD_TIMEOUT_S)
            head = _Head.read(client)
            guard = self._guards.get(head.token)
            if guard is None:
                _answer(client, "407 Proxy Authentication Required", "")
                return
            upstream = self._connect(client, guard, head)
            if upstream is not None:
                with upstream:
                    head.begin(client, upstream)
                    _relay(client, upstream)

    def _connect(self, client: socket.socket, guard: Guard, head: "_Head") -> socket.socket | None:
        """A connection to an address that was checked, and to no other; None once it has been refused."""
        status, text = "502 Bad Gateway", "no address"
        try:
            for address in resolve(head.host, head.port, self._allow_list):
                try:
                    upstream = socket.create_connection((str(address), head.port), _CONNECT_TIMEOUT_S)
                except OSError as error:
                    text = f"{address}: {error}"
                else:
                    guard.remember(None)
                    return upstream
        except EndpointError as error:
            guard.remember(error)
            if error.reason is not EndpointReason.DNS_LOOKUP_FAILED:
                status = "403 Forbidden"
            text = str(error)
        _answer(client, status, text)
        return None


@cache
def _gate(allow_list: AllowList) -> Gate:
    return Gate(allow_list)


class _Head:
    """The head of a request to the proxy, and the bytes after it that came along."""

    def __init__(self, head: bytes, rest: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self._method, self._target, _ = first.split(" ")
        self._lines = lines
        self._rest = rest
        tunnel = self._method == "CONNECT"
        parts = urlsplit(f"//{self._target}" if tunnel else self._target)
        if not parts.hostname or (not tunnel and parts.scheme != "http"):
            raise ValueError(self._target)
        self.host: str = parts.hostname
        self.port: int = parts.port or 80

    @classmethod
    def read(cls, client: socket.socket) -> "_Head":
        """Read until the empty line."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = client.recv(_MAX_HEAD_BYTES)
            if not chunk or len(data) > _MAX_HEAD_BYTES:
                raise ValueError("no request")
            data += chunk
        head, _, rest = data.partition(b"\r\n\r\n")
        return cls(head, rest)

    @property
    def token(self) -> str:
        """With whose credentials the request comes; empty without any."""
        for line in self._lines:
            name, _, value = line.partition(":")
            if name.lower() == "proxy-authorization":
                return base64.b64decode(value.strip().removeprefix("Basic ")).decode().partition(":")[0]
        return ""

    def begin(self, client: socket.socket, upstream: socket.socket) -> None:
        """Say that the tunnel stands, or pass the request's head on, then what came after it."""
        if self._method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # The next request may be for another host, so it has to come with a connection of its own.
            dropped = ("proxy-authorization", "proxy-connection", "connection")
            kept = [line for line in self._lines if line.partition(":")[0].lower() not in dropped]
            parts = urlsplit(self._target)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            lines = [f"{self._method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
            upstream.sendall("\r\n".join(lines).encode("latin-1"))
        upstream.sendall(self._rest)


def _answer(client: socket.socket, status: str, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    client.sendall(head.encode() + body)


def _relay(client: socket.socket, upstream: socket.socket) -> None:
    """Pass bytes both ways until either side ends."""
    for end in (client, upstream):
        end.settimeout(None)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    up = threading.Thread(target=_pass, args=(client, upstream), name="endpoint-gate", daemon=True)
    up.start()
    _pass(upstream, client)
    up.join()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        _splice(source, sink)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _splice(source: socket.socket, sink: socket.socket) -> None:
    """Move bytes in the kernel, from socket to socket through a pipe."""
    reader, writer = os.pipe()
    try:
        with suppress(OSError):  # the user's pipes are as large as they may be
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        while moved := os.splice(source.fileno(), writer, _PIPE_BYTES):
            while moved:
                moved -= os.splice(reader, sink.fileno(), moved)
    finally:
        os.close(reader)
        os.close(writer)
