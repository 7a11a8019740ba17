"""Which faults are tried again, and what they are called."""

import pytest

from langfuse_export.errors import (
    OccupiedError,
    PricesError,
    TooEarlyError,
    WindowError,
    is_transient,
    reason_of,
    stops_project,
    user_fault,
)
from langfuse_worker.blobstore import ObjectTooLargeError, StoreAccessError, StoreError, StoreFullError
from langfuse_worker.clickhouse import ClickHouseError
from langfuse_worker.store_faults import AccessFault

FULL = StoreFullError("file:///a: Unable to copy data to file: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (ClickHouseError("no route to host"), "clickhouse_unavailable", True),
        (ClickHouseError("memory", 241), "clickhouse_memory", True),
        (ClickHouseError("timeout", 159), "clickhouse_timeout", True),
        (ClickHouseError("too many queries", 202), "clickhouse_overloaded", True),
        (ClickHouseError("password", 516), "clickhouse_refused", False),
        (ClickHouseError("no such table", 60), "clickhouse_refused", False),
        (StoreError("503"), "destination_unavailable", True),
        (StoreAccessError("403"), "destination_access", False),
        (FULL, "destination_full", False),
        (ObjectTooLargeError("parts"), "object_too_large", False),
        (PricesError("Postgres at db:5432: no route to host"), "prices_unavailable", True),
        (TooEarlyError("clock"), "too_early", True),
        (OccupiedError("another window"), "occupied", False),
        (KeyboardInterrupt(), "cancelled", False),
        (ZeroDivisionError(), "unexpected", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_fault_has_a_reason_and_is_retried_only_if_that_can_help(
    error: BaseException, reason: str, transient: bool
) -> None:
    assert reason_of(error) == reason
    assert is_transient(error) is transient


def test_a_window_is_retried_unless_one_of_its_tables_can_never_succeed() -> None:
    passing, lasting = ClickHouseError("network", 210), ClickHouseError("no such table", 60)
    assert is_transient(WindowError("w", {"traces": passing, "scores": passing}, {}))
    assert not is_transient(WindowError("w", {"traces": passing, "scores": lasting}, {}))


def test_a_window_stops_its_project_whichever_of_its_tables_met_what_all_would_meet() -> None:
    of_traces, of_all = ClickHouseError("memory", 241), StoreAccessError("403")
    window = WindowError("w", {"traces": of_traces, "scores": of_all}, {})
    assert stops_project(window)
    assert reason_of(window) == "destination_access"
    assert not stops_project(WindowError("w", {"traces": of_traces, "scores": of_traces}, {}))


def test_the_owner_of_the_destination_is_named_only_when_the_store_says_so() -> None:
    refused = WindowError("w", {"traces": ClickHouseError("network"), "scores": StoreAccessError("403")}, {})
    assert user_fault(refused) is AccessFault.CREDENTIALS
    assert user_fault(StoreAccessError("404", AccessFault.BUCKET)) is AccessFault.BUCKET
    for other in (StoreError("503"), FULL, ClickHouseError("password", 516), OccupiedError("o")):
        assert user_fault(other) is None
