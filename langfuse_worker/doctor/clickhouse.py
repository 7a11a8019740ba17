"""What either role needs of ClickHouse."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from langfuse_worker.clickhouse import ClickHouse, ClickHouseError, Query, QueryComment, shown_url
from langfuse_worker.doctor.clock import compare_clocks
from langfuse_worker.doctor.finding import Finding, ok, problem, warning

PROFILES = "docs/operations.md, ClickHouse users and profiles"
_ROW_FILTER = "Row level filter column:"
_CONSTRAINT = 452
_READONLY = 164
_TAGGED_SINCE = (25, 11)

Connect = Callable[[], ClickHouse]


@contextmanager
def connected(connect: Connect) -> Iterator[ClickHouse]:
    """A connection for one check."""
    source = connect()
    try:
        with source.hold():
            yield source
    finally:
        source.close()


def ask(source: ClickHouse, sql: str, **parameters: str | int) -> list[tuple]:
    """The rows of a query of a check. Raises ClickHouseError."""
    return source.rows(Query(sql, QueryComment(purpose="doctor"), parameters))


def row_policy(source: ClickHouse, table: str, column: str) -> str:
    """What rows of a table this user sees, as SQL; empty if all of them, or if the table has no rows.

    `system.row_policies` takes a right that only administrators have. The plan of a query names them.

    Raises:
        ClickHouseError: the column may not be read.
    """
    plan = ask(source, f"EXPLAIN actions = 1 SELECT {column} FROM `{table}`")
    filters = (str(row[0]).partition(_ROW_FILTER)[2].strip() for row in plan)
    return " AND ".join(dict.fromkeys(filter(None, filters)))


def check_connection(what: str, connect: Connect, url: str) -> Iterator[Finding]:
    """Whether ClickHouse answers, takes the limits that every query carries, and how new it is."""
    try:
        with connected(connect) as source:
            [(version, user)] = ask(source, "SELECT version(), currentUser()")
    except ClickHouseError as error:
        yield problem(what, str(error), _remedy(error))
        return
    text = f"ClickHouse {version} at {shown_url(url)} as user {user}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < _TAGGED_SINCE:
        yield warning(
            what,
            f"{text}: before 25.11 ClickHouse does not mark an exception in the middle of a result; it is "
            "recognised by the file's end and by the row count",
            "upgrade when you can",
        )
    else:
        yield ok(what, text)


def check_clock(what: str, connect: Connect) -> Iterator[Finding]:
    """Compare ClickHouse's clock with this machine's."""
    with connected(connect) as source:
        ask(source, "SELECT 1")  # connecting takes its time
        before = datetime.now(UTC)
        [(theirs,)] = ask(source, "SELECT toUnixTimestamp64Micro(now64(6))")
        ours = before + (datetime.now(UTC) - before) / 2
    yield compare_clocks(what, datetime.fromtimestamp(theirs / 1e6, UTC), ours)


def _remedy(error: ClickHouseError) -> str:
    if error.code == _CONSTRAINT:
        return f"lower the limits of the settings, or raise the constraints of the profile ({PROFILES})"
    if error.code == _READONLY:
        return "readonly = 1 forbids limits as settings: use readonly = 2 in the user's profile"
    if error.code is None:
        return "check CLICKHOUSE_URL, CLICKHOUSE_EXPORT_URL, the network and whether ClickHouse runs"
    return "check user, password and database: CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, CLICKHOUSE_DB"
