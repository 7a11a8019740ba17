"""Connections to Langfuse's Postgres, from the DATABASE_URL that Langfuse itself has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composed, Identifier
from pydantic import SecretStr

# What libpq knows of a URL's parameters; the rest is Prisma's, such as `connection_limit` and `pgbouncer`.
_LIBPQ = {"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "options"}
_LIBPQ |= {"application_name", "channel_binding", "target_session_attrs", "gssencmode"}
CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 15
_WITHOUT = SQL(
    "SELECT a.attname AS name FROM pg_attribute a WHERE a.attrelid = {table}::regclass AND a.attnum > 0 "
    "AND a.attname = ANY(%(columns)s) AND NOT has_column_privilege(a.attrelid, a.attnum, %(privilege)s)"
)


class DatabaseError(Exception):
    """Postgres does not answer or refuses; the message is one line without the password."""


def prisma_time(moment: datetime) -> datetime:
    """A moment as Prisma stores it: UTC without a zone, to the millisecond."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


@dataclass(frozen=True)
class Database:
    """Where Langfuse's Postgres is.

    Attributes:
        url: as Prisma takes it: `postgresql://user:password@host:5432/postgres?schema=public`.
    """

    url: SecretStr

    @property
    def shown(self) -> str:
        """The address without credentials."""
        # Not what urlsplit says: with a / or # of a password as it is, its host would be the user.
        address, _, query = self.url.get_secret_value().partition("://")[2].rpartition("@")[2].partition("?")
        return f"{dict(parse_qsl(query)).get('host', '')}{address}" if address.startswith("/") else address

    def table(self, name: str) -> Identifier:
        """A table of Langfuse's in its schema."""
        query = dict(parse_qsl(urlsplit(self.url.get_secret_value()).query))
        return Identifier(query.get("schema") or "public", name)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[DictRow]]:
        """A connection of its own for one transaction; no statement takes longer than 15 s.

        Raises:
            DatabaseError: also for what Postgres says to the statements within.
        """
        try:
            with (
                # Without prepared statements and session settings, poolers such as pgbouncer do not mind.
                psycopg.connect(self._conninfo(), prepare_threshold=None) as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                cursor.execute(SQL("SET LOCAL statement_timeout = {}").format(STATEMENT_TIMEOUT_S * 1000))
                yield cursor
        except psycopg.Error as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DatabaseError(f"Postgres at {self.shown}: {self._masked(reason)}") from None

    def update(self, statement: SQL | Composed, parameters: dict[str, object]) -> int:
        """Run one UPDATE; returns how many rows it changed. Raises DatabaseError."""
        with self.transaction() as cursor:
            return cursor.execute(statement, parameters).rowcount

    def columns_without(
        self, privilege: Literal["SELECT", "UPDATE"], table: str, columns: Sequence[str]
    ) -> list[str]:
        """Those of a table's columns for which the role lacks the privilege. Raises DatabaseError."""
        statement = _WITHOUT.format(table=self.table(table).as_string())
        with self.transaction() as cursor:
            rows = cursor.execute(statement, {"columns": list(columns), "privilege": privilege}).fetchall()
        return [row["name"] for row in rows]

    def _conninfo(self) -> str:
        parts = urlsplit(self.url.get_secret_value())
        kept = {name: value for name, value in parse_qsl(parts.query) if name in _LIBPQ}
        defaults = {"connect_timeout": str(CONNECT_TIMEOUT_S), "application_name": "langfuse-export"}
        # A connection that was cut without a word must not hold up an export.
        defaults["tcp_user_timeout"] = str(STATEMENT_TIMEOUT_S * 1000)
        return parts._replace(query=urlencode({**defaults, **kept})).geturl()

    def _masked(self, text: str) -> str:
        password = urlsplit(self.url.get_secret_value()).password
        return text.replace(password, "***") if password else text
