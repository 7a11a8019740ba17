"""Which addresses a store may have when a user has chosen it, as in Langfuse's Postgres.

A project's admin chooses the endpoint; without a check, exports would be a way to reach what only this
machine can reach. An endpoint is checked when it is read, and each address again when it is connected to.
"""

import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote

from ada_url import URL

from langfuse_worker.settings import Settings

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_USER = re.compile(r"(?<=//)[^/@]*@")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class EndpointReason(StrEnum):
    """Why an endpoint is refused; the words are Langfuse's."""

    INVALID_ENCODING = "invalid-encoding"
    INVALID_SYNTAX = "invalid-syntax"
    CREDENTIALS = "url-credentials-not-allowed"
    PROTOCOL = "protocol-not-allowed"
    BLOCKED_HOSTNAME = "blocked-hostname"
    BLOCKED_IP = "blocked-ip"
    DNS_LOOKUP_FAILED = "dns-lookup-failed"


class EndpointError(Exception):
    """An endpoint is refused.

    Attributes:
        reason: one word for it. Only `dns-lookup-failed` may pass by itself.
    """

    def __init__(self, endpoint: str, reason: EndpointReason, detail: str) -> None:
        super().__init__(f"endpoint {_USER.sub('***@', endpoint)}: {detail} ({reason})")
        self.reason = reason


@dataclass(frozen=True)
class AllowList:
    """What is allowed although it would be blocked: hosts as they are written, addresses, networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IpNetwork, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> "AllowList":
        """LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_HOST, _IPS and _IP_SEGMENTS."""
        written = (*settings.endpoint_allowed_ips, *settings.endpoint_allowed_networks)
        return cls(frozenset(settings.endpoint_allowed_hosts), tuple(ip_network(text) for text in written))

    def has_host(self, host: str) -> bool:
        """Whether this host may be connected to, whatever its addresses."""
        return host.lower() in self.hosts

    def has_address(self, address: IpAddress) -> bool:
        """Whether this address may be connected to."""
        return any(address in network for network in self.networks)


_BLOCKED_HOSTS = {
    "localhost",
    "internal",
    "intranet",
    "metadata.google.internal",
    "169.254.169.254",
    "fd00:ec2::254",
    "host.docker.internal",
    "gateway.docker.internal",
}
_BLOCKED_DOMAINS = (".localhost", ".internal", ".intranet")
_BLOCKED_NETWORKS = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/29",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::1/128",
        "::/96",
        "::ffff:0:0/96",  # IPv4 in IPv6
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/32",
        "2001:db8::/32",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
)


def validate_endpoint(endpoint: str, allow_list: AllowList) -> str:
    """Check an endpoint that a user has written; resolves its host.

    Returns:
        The endpoint as every WHATWG parser, obstore's too, will understand it.

    Raises:
        EndpointError: it is refused; `reason` says why.
    """
    url = _parsed(endpoint.strip())
    resolve(url.hostname.strip("[]"), url.port or ("443" if url.protocol == "https:" else "80"), allow_list)
    return url.href.rstrip("/")


def resolve(host: str, port: str | int, allow_list: AllowList) -> list[IpAddress]:
    """The addresses of a host, all of which may be connected to.

    Args:
        host: a name, or an address without brackets.
        port: for the lookup only.

    Raises:
        EndpointError: the host or one of its addresses is blocked, or it has none.
    """
    host = host.lower().rstrip(".")
    literal = _literal(host)
    if allow_list.has_host(host):
        return [literal] if literal else _look_up(host, port)
    if literal and allow_list.has_address(literal):
        return [literal]
    if host in _BLOCKED_HOSTS or host.endswith(_BLOCKED_DOMAINS):
        raise EndpointError(host, EndpointReason.BLOCKED_HOSTNAME, "this host may not be an endpoint")
    addresses = [literal] if literal else _look_up(host, port)
    for address in addresses:
        if _is_blocked(address) and not allow_list.has_address(address):
            raise EndpointError(host, EndpointReason.BLOCKED_IP, f"{address} is private or reserved")
    return addresses


def _is_blocked(address: IpAddress) -> bool:
    return any(address in network for network in _BLOCKED_NETWORKS)


def _parsed(endpoint: str) -> URL:
    if _BAD_ESCAPE.search(endpoint):
        raise EndpointError(endpoint, EndpointReason.INVALID_ENCODING, "a % is not followed by two digits")
    try:
        unquote(endpoint, errors="strict")
    except UnicodeDecodeError:
        detail = "its percent-encoding is not UTF-8"
        raise EndpointError(endpoint, EndpointReason.INVALID_ENCODING, detail) from None
    try:
        url = URL(endpoint)
    except ValueError:
        raise EndpointError(endpoint, EndpointReason.INVALID_SYNTAX, "not a URL") from None
    if url.username or url.password:
        raise EndpointError(endpoint, EndpointReason.CREDENTIALS, "must not contain a user or password")
    if url.protocol not in ("http:", "https:"):
        raise EndpointError(endpoint, EndpointReason.PROTOCOL, "must be http:// or https://")
    return url


def _literal(host: str) -> IpAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _look_up(host: str, port: str | int) -> list[IpAddress]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EndpointError(host, EndpointReason.DNS_LOOKUP_FAILED, f"cannot be resolved: {error}") from None
    return list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found))
