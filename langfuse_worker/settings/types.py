"""Kinds of values that variables have: validated, and taken apart where they are lists."""

import re
from ipaddress import ip_address, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

# User and password, host, port, the rest. With a / or # of a password as it is, the user would be the host.
_HTTP = re.compile(r"https?://([^][/?#]*@)?(\[[^]]+\]|[^]/?#@:[]+)(:\d+)?([/?#][^@]*)?", re.IGNORECASE)
_CHDB = re.compile(r"chdb://[^/]*/.+", re.IGNORECASE)
_MOST_DAYS = 36_500  # ClickHouse's times begin in 1900


def _clickhouse_url(value: str) -> str:
    if _HTTP.fullmatch(value) or _CHDB.fullmatch(value):
        return value
    raise ValueError(
        "must be http://host:8123, https://host:8443 or chdb:///directory; a password has / as %2F, and its "
        "?, #, [ and ] likewise"
    )


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://host:3000 or https://host/path")
    return value.rstrip("/")


def _postgres_url(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
        raise ValueError("must be postgresql://user:password@host:5432/database")
    return value


def _encryption_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch("[0-9a-fA-F]{64}", value.get_secret_value()):
        raise ValueError("must be 64 hex digits, as `openssl rand -hex 32` prints them")
    return value


def _split(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _lowered(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in value)


def _addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ip_address(part)) for part in value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ip_network(part)) for part in value)


def _is_days(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) <= _MOST_DAYS


def _retention(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [part.rpartition("=") for part in value.split(",") if part.strip()]
    if not all(project.strip() and _is_days(days.strip()) for project, _, days in pairs):
        raise ValueError(
            "must be project=days, separated by commas, 36500 days at most; * is every other project"
        )
    return {project.strip(): int(days) for project, _, days in pairs}


HttpUrl = Annotated[str, AfterValidator(_http_url)]
ClickHouseUrl = Annotated[str, AfterValidator(_clickhouse_url)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
EncryptionKey = Annotated[SecretStr, AfterValidator(_encryption_key)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
HostNames = Annotated[CommaSeparated, AfterValidator(_lowered)]
Addresses = Annotated[CommaSeparated, AfterValidator(_addresses)]
Networks = Annotated[CommaSeparated, AfterValidator(_networks)]
Retention = Annotated[dict[str, int], NoDecode, BeforeValidator(_retention)]
