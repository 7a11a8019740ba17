"""Calls in threads, whose results are taken in order."""

import threading
from contextlib import closing

import pytest

from langfuse_export.side_by_side import side_by_side

WAIT_S = 60


def never() -> None:
    """Nothing is cancelled here."""
    raise AssertionError


def test_results_come_in_the_order_of_the_calls_however_they_end() -> None:
    last_has_ended = threading.Event()

    def first() -> str:
        assert last_has_ended.wait(WAIT_S)
        return "first"

    def second() -> str:
        raise ValueError("second")

    def last() -> str:
        last_has_ended.set()
        return "last"

    results = dict(side_by_side([("a", first), ("b", second), ("c", last)], 3, never))

    assert list(results) == ["a", "b", "c"]
    assert results["a"].result() == "first"
    assert isinstance(results["b"].exception(), ValueError)
    assert results["c"].result() == "last"


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_call_begins_only_while_there_is_room_for_it(at_once: int) -> None:
    begun: list[int] = []
    calls = ((n, lambda n=n: begun.append(n)) for n in range(9))

    for n, result in side_by_side(calls, at_once, never):
        result.result()
        assert max(begun) < n + at_once

    assert sorted(begun) == list(range(9))


def test_who_leaves_early_cancels_what_is_in_progress_and_waits_for_it() -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def call() -> None:
        assert cancelled.wait(WAIT_S)
        ended.set()

    with closing(side_by_side([("a", call)], 1, cancelled.set)) as results:
        name, _ = next(results)

    assert name == "a"
    assert ended.is_set()
