"""Stores that a user has chosen: every address is checked when it is connected to, whatever it was before."""

import base64
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from langfuse_worker.blobstore import BlobStore, StoreAccessError, StoreConfig, StoreError
from langfuse_worker.blobstore.gate import Guard
from langfuse_worker.settings import settings
from langfuse_worker.store_faults import AccessFault
from tests.servers.google import GoogleServer
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

BUCKET = "chosen"
PUBLIC = "8.8.8.8"
ALLOWED = "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_"


@pytest.fixture
def chosen(s3: S3Server) -> StoreConfig:
    """A bucket that a user has chosen, on loopback."""
    s3.create_bucket(BUCKET)
    return replace(s3.store_config(BUCKET), untrusted_endpoint=True)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a name resolve to one address after the other; the last one stays."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in names:
            return real(host, port, *args, **kwargs)
        address = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port)))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lambda name, *addresses: names.update({name: list(addresses)})


def allow(monkeypatch: pytest.MonkeyPatch, **lists: str) -> None:
    """Set the allow-list."""
    for name, value in lists.items():
        monkeypatch.setenv(ALLOWED + name, value)
    settings.cache_clear()


def at(config: StoreConfig, host: str) -> StoreConfig:
    """The same store under another host name."""
    return replace(config, endpoint=f"http://{host}:{urlsplit(config.endpoint).port}")


def write(config: StoreConfig) -> None:
    """Write a small object as a stream."""
    BlobStore(config).write("a.txt", iter([b"x"]), "text/plain")


def test_an_endpoint_on_loopback_works_once_it_is_allowed(
    chosen: StoreConfig, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreAccessError, match="blocked-ip") as error:
        write(chosen)
    assert error.value.fault is AccessFault.ENDPOINT
    assert s3.keys(BUCKET) == []

    allow(monkeypatch, IPS="127.0.0.1")
    store = BlobStore(replace(chosen, part_bytes=5 << 20))
    chunks = [bytes([n]) * (1 << 20) for n in range(23)]
    store.write("large", iter(chunks), "text/plain")
    assert s3.read(BUCKET, "large") == b"".join(chunks)
    assert store.read("large") == b"".join(chunks)


def test_a_name_that_turns_to_loopback_after_the_check_is_not_connected_to(
    chosen: StoreConfig, s3: S3Server, dns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    dns("rebinding.example.com", PUBLIC, "127.0.0.1")

    with pytest.raises(StoreAccessError, match=r"rebinding\.example\.com.*blocked-ip") as error:
        write(at(chosen, "rebinding.example.com"))

    assert error.value.fault is AccessFault.ENDPOINT
    assert s3.keys(BUCKET) == []


def test_a_redirect_does_not_lead_out(
    chosen: StoreConfig, s3: S3Server, dns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's own host is allowed, the address that it sends to is not."""
    dns("store.example.com", "127.0.0.1")
    allow(monkeypatch, HOST="store.example.com")
    with S3Proxy(s3) as store, S3Proxy(s3) as secret:
        target = f"{secret.url}/{BUCKET}/a.txt"
        store.faults = [S3Fault("GET", status=307, headers={"Location": target})]
        redirected = BlobStore(at(replace(chosen, endpoint=store.url), "store.example.com"))

        with pytest.raises(StoreError):
            redirected.read("a.txt")

        assert store.requests
        assert secret.requests == []


def test_a_name_without_an_address_may_get_one_later(chosen: StoreConfig, dns: Callable[..., None]) -> None:
    with pytest.raises(StoreError, match="dns-lookup-failed") as error:
        write(at(chosen, "nowhere.invalid"))
    assert not isinstance(error.value, StoreAccessError)


def test_the_bucket_goes_into_the_host_if_paths_are_not_forced(
    chosen: StoreConfig, dns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dns("s3.example.com", PUBLIC)
    dns(f"{BUCKET}.s3.example.com", "10.0.0.1")
    in_host = replace(at(chosen, "s3.example.com"), force_path_style=False)
    with pytest.raises(StoreAccessError, match=rf"{BUCKET}\.s3\.example\.com.*blocked-ip"):
        write(in_host)


def test_ambient_credentials_do_not_come_through_the_gate(
    chosen: StoreConfig, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, IPS="127.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
    write(replace(chosen, access_key_id=None, secret_access_key=None))
    assert s3.keys(BUCKET) == ["a.txt"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (StoreConfig("az://c/", account_name="abc"), "needs credentials of its own"),
        (StoreConfig("gs://b/"), "needs credentials of its own"),
        (StoreConfig("gs://b/", service_account="/etc/shadow"), "must be the JSON itself"),
        (StoreConfig("file:///etc/"), "cannot be chosen by a user"),
    ],
    ids=["identity at Azure", "identity at Google", "file of a key", "directory"],
)
def test_what_belongs_to_this_machine_is_not_at_a_users_disposal(config: StoreConfig, message: str) -> None:
    with pytest.raises(StoreAccessError, match=message):
        write(replace(config, untrusted_endpoint=True))


def test_google_is_reached_through_the_gate_too(
    google: GoogleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.create_bucket(BUCKET)
    chosen = replace(google.store_config(BUCKET), untrusted_endpoint=True)
    with pytest.raises(StoreAccessError, match="blocked-ip"):
        write(chosen)
    allow(monkeypatch, IPS="127.0.0.1")
    write(chosen)
    assert google.keys(BUCKET) == ["a.txt"]


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while data := connection.recv(1 << 20):
                        connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def connect_through(proxy_url: str, target: str) -> tuple[socket.socket, bytes]:
    """Ask the gate for a tunnel, as an HTTPS client does; the connection and the answer's first line."""
    parts = urlsplit(proxy_url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 0), 10)
    user = base64.b64encode(f"{parts.username or ''}:".encode()).decode()
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {user}\r\n\r\n"
    connection.sendall(head.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    return connection, answer.split(b"\r\n")[0]


def test_a_tunnel_carries_bytes_both_ways(echo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, IPS="127.0.0.1")
    guard = Guard()
    connection, answer = connect_through(guard.proxy_url, f"127.0.0.1:{echo}")
    assert b" 200 " in answer
    sent = bytes(range(256)) * 20_000
    threading.Thread(target=connection.sendall, args=(sent,)).start()
    received = b""
    while len(received) < len(sent):
        received += connection.recv(1 << 20)
    assert received == sent
    connection.close()


def test_a_tunnel_is_refused_to_blocked_addresses_and_to_strangers(echo: int) -> None:
    guard = Guard()
    _, answer = connect_through(guard.proxy_url, f"127.0.0.1:{echo}")
    assert b" 403 " in answer
    refusal = guard.take_refusal()
    assert refusal is not None
    assert refusal.reason == "blocked-ip"
    stranger = guard.proxy_url.replace("//", "//x")
    _, answer = connect_through(stranger, "8.8.8.8:443")
    assert b" 407 " in answer


def test_the_gate_outlives_a_moment_without_file_descriptors(
    echo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, IPS="127.0.0.1")
    guard = Guard()
    port = int(guard.proxy_url.rpartition(":")[2])
    with socket.socket() as waiting:
        waiting.settimeout(0.5)
        with no_descriptors_left():
            waiting.connect(("127.0.0.1", port))
            with pytest.raises(TimeoutError):
                waiting.recv(1)

        _, answer = connect_through(guard.proxy_url, f"127.0.0.1:{echo}")

    assert b" 200 " in answer


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let the process open no further files and connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unused = os.dup(0)
    os.close(unused)
    resource.setrlimit(resource.RLIMIT_NOFILE, (unused, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
