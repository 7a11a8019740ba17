"""Endpoints that users choose: what is refused, with which word, and what the allow-list lets through."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from langfuse_worker.endpoints import AllowList, EndpointError, EndpointReason, validate_endpoint
from langfuse_worker.settings import SettingsError, load_settings

NOTHING = AllowList()
PREFIX = "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_"


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a name resolve to addresses, or to nothing. The resolver of the machine is no part of a test."""
    names: dict[str, tuple[str, ...]] = {}

    def getaddrinfo(host: str, port: object, *_: Any, **__: Any) -> list[Any]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lambda name, *addresses: names.update({name: addresses})


def reason_of(endpoint: str, allow_list: AllowList = NOTHING) -> EndpointReason:
    """The word with which an endpoint is refused."""
    with pytest.raises(EndpointError) as refused:
        validate_endpoint(endpoint, allow_list)
    return refused.value.reason


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("https://s3.example.com/%zz", "invalid-encoding"),
        ("https://s3.example.com/%ff", "invalid-encoding"),
        ("s3.example.com", "invalid-syntax"),
        ("https://", "invalid-syntax"),
        ("https://a b.example.com", "invalid-syntax"),
        ("https://user:hunter2@s3.example.com", "url-credentials-not-allowed"),
        ("https://user@s3.example.com", "url-credentials-not-allowed"),
        ("ftp://s3.example.com", "protocol-not-allowed"),
        ("file:///etc/passwd", "protocol-not-allowed"),
        ("http://localhost:9000", "blocked-hostname"),
        ("http://LOCALHOST.:9000", "blocked-hostname"),
        ("http://minio.localhost", "blocked-hostname"),
        ("http://vault.internal", "blocked-hostname"),
        ("http://wiki.intranet", "blocked-hostname"),
        ("http://metadata.google.internal", "blocked-hostname"),
        ("http://host.docker.internal", "blocked-hostname"),
        ("http://169.254.169.254/latest/meta-data", "blocked-hostname"),
        ("http://[fd00:ec2::254]", "blocked-hostname"),
        ("http://127.0.0.1:9000", "blocked-ip"),
        ("http://127.1", "blocked-ip"),
        ("http://0x7f000001", "blocked-ip"),
        ("http://2130706433", "blocked-ip"),
        ("http://0177.0.0.1", "blocked-ip"),
        ("http://①②⑦.⓪.⓪.①", "blocked-ip"),
        ("http://%31%32%37.0.0.1", "blocked-ip"),
        ("http://[::ffff:127.0.0.1]", "blocked-ip"),
        ("https://missing.example.com", "dns-lookup-failed"),
    ],
)
def test_each_reason(dns: Callable[..., None], endpoint: str, reason: str) -> None:
    assert reason_of(endpoint) == reason


@pytest.mark.parametrize(
    "address",
    [
        *("0.1.2.3", "10.0.0.1", "100.64.0.1", "127.8.8.8", "169.254.1.1", "172.16.0.1", "172.31.255.255"),
        *("192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1"),
        *("2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fdff::1", "fe80::1", "ff02::1"),
    ],
)
def test_no_private_or_reserved_address_is_reached_literally_or_by_name(
    dns: Callable[..., None], address: str
) -> None:
    dns("s3.example.com", address)
    host = f"[{address}]" if ":" in address else address

    assert reason_of("https://s3.example.com") == "blocked-ip"
    assert reason_of(f"http://{host}") == "blocked-ip"


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2a00:1450::1"])
def test_public_addresses_pass(dns: Callable[..., None], address: str) -> None:
    dns("s3.example.com", address)
    assert validate_endpoint(" HTTPS://S3.Example.com:443/ ", NOTHING) == "https://s3.example.com"


def test_one_blocked_address_among_public_ones_is_enough(dns: Callable[..., None]) -> None:
    dns("s3.example.com", "8.8.8.8", "10.0.0.1")
    assert reason_of("https://s3.example.com") == "blocked-ip"


def test_the_allow_list_is_read_from_langfuses_variables(
    dns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dns("minio.internal", "10.0.0.1")
    dns("s3.example.com", "192.168.7.7")
    monkeypatch.setenv(PREFIX + "HOST", "MinIO.internal, localhost")
    monkeypatch.setenv(PREFIX + "IPS", "127.0.0.1,fd00::1")
    monkeypatch.setenv(PREFIX + "IP_SEGMENTS", "192.168.7.0/24")

    allow_list = AllowList.from_settings(load_settings())

    for endpoint in (
        "http://minio.internal:9000",
        "http://127.0.0.1:9000",
        "http://[fd00::1]:9000",
        "https://s3.example.com",
    ):
        assert validate_endpoint(endpoint, allow_list) == endpoint
    assert reason_of("http://127.0.0.2", allow_list) == "blocked-ip"
    assert reason_of("http://vault.internal", allow_list) == "blocked-hostname"


@pytest.mark.parametrize(("name", "value"), [("IPS", "10.0.0"), ("IP_SEGMENTS", "10.0.0.1/8")])
def test_an_allow_list_that_cannot_be_read_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=f"{PREFIX}{name}='{value}'"):
        load_settings()


@pytest.mark.parametrize("path", ["", "/%zz"])
def test_credentials_in_an_endpoint_are_not_repeated(path: str) -> None:
    with pytest.raises(EndpointError) as refused:
        validate_endpoint(f"https://user:hunter2@s3.example.com{path}", NOTHING)
    assert "hunter2" not in str(refused.value)
