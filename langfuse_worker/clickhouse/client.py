"""The interface to ClickHouse, and what its implementations share."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from langfuse_worker.clickhouse.limits import QueryComment, QueryLimits
from langfuse_worker.clickhouse.literals import quoted_array
from langfuse_worker.clickhouse.profiles import WHATEVER_THE_PROFILE
from langfuse_worker.settings import Settings

# ClickHouse parses 256 KiB unless it is told to parse more.
_LONG_QUERY_BYTES = 64 << 20

# Codes of ClickHouse that callers treat as answers.
UNKNOWN_TABLE = 60
ACCESS_DENIED = 497

Scalar = str | int | float
Parameter = Scalar | list[str]


class ClickHouseError(Exception):
    """ClickHouse refused or broke a query.

    Attributes:
        code: ClickHouse's error code, or None when no server answered.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Query:
    """One query: text with `{name:Type}` parameters, its comment, and settings beyond the limits.

    Parameters are in the request's URL and in ClickHouse's query log. What must not be there is in `secrets`,
    for `{name:Secret}`; what may be too long for a URL is in `lists`, for `{name:Array(String)}`.
    """

    sql: str
    comment: QueryComment
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    query_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)


class ClickHouse(Protocol):
    """A ClickHouse. Thread-safe. Every query carries the limits."""

    limits: QueryLimits

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        """Run a query with a small result.

        Raises:
            ClickHouseError: the server cannot be reached or refuses the query.
        """
        ...

    def stream(self, query: Query, output_format: str) -> AbstractContextManager[Iterator[bytes]]:
        """Run a query and yield the bytes of its result in `output_format` as ClickHouse writes them.

        Leaving the context early cancels the query.

        Raises:
            ClickHouseError: before the first byte or in the middle of the stream.
        """
        ...

    def execute(self, query: Query, data: bytes | None = None) -> None:
        """Run a statement without a result, such as an INSERT with its rows in `data`.

        Raises:
            ClickHouseError: the server cannot be reached or refuses the statement. Without a code it is
                unknown whether the statement ran.
        """
        ...

    def kill(self, query_id: str) -> None:
        """Cancel a query if it still runs. Best effort, never raises."""
        ...

    def with_limits(self, limits: QueryLimits) -> Self:
        """The same server with other limits, sharing connections."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Keep an embedded engine open between queries; opening it costs some 30 ms each time."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True)
class Address:
    """A ClickHouse URL taken apart; what the URL leaves open comes from the settings."""

    url: str
    user: str
    password: str
    database: str

    @classmethod
    def of(cls, url: str, settings: Settings) -> Self:
        """Credentials in the URL win over CLICKHOUSE_USER and CLICKHOUSE_PASSWORD."""
        parts = urlsplit(url)
        return cls(
            url=url,
            user=unquote(parts.username or "") or settings.clickhouse_user,
            password=unquote(parts.password or "") or settings.clickhouse_password.get_secret_value(),
            database=settings.clickhouse_db,
        )

    @property
    def shown(self) -> str:
        """The URL without credentials."""
        return shown_url(self.url)

    def __repr__(self) -> str:
        return f"Address({self.shown}, user={self.user}, database={self.database})"


def shown_url(url: str) -> str:
    """A ClickHouse URL without credentials, for logs and messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def prepared(query: Query, limits: QueryLimits) -> Query:
    """The query as it is sent, with limits and comment among its settings: the one place that adds them."""
    settings = {
        **query.settings,
        **WHATEVER_THE_PROFILE,
        **limits.settings(),
        "log_comment": str(query.comment),
    }
    sql = query.sql
    for name, value in query.secrets.items():
        sql = sql.replace(f"{{{name}:Secret}}", _unlogged(value))
    for name, values in query.lists.items():
        sql = sql.replace(f"{{{name}:Array(String)}}", quoted_array(values))
    if query.lists:
        settings["max_query_size"] = _LONG_QUERY_BYTES
    return replace(query, sql=sql, settings=settings)


def _unlogged(value: bytes) -> str:
    """An expression of the value that ClickHouse shows as `[HIDDEN]` in its logs and its list of processes.

    It does so for all arguments of its encryption functions after the mode, whatever they are.
    """
    key = "'0123456789abcdef'"
    return f"decrypt('aes-128-ecb', encrypt('aes-128-ecb', unhex('{value.hex()}'), {key}), {key})"
