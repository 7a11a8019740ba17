"""Runs calls in threads, some at once, for whoever has to take their results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Name = TypeVar("Name")
Result = TypeVar("Result")


def side_by_side(
    calls: Iterable[tuple[Name, Callable[[], Result]]], at_once: int, cancel: Callable[[], None]
) -> Generator[tuple[Name, Future[Result]]]:
    """Each call's name with its result, which may have to be waited for, in the order of the calls.

    Args:
        calls: named; asked for in the caller's thread.
        at_once: calls in progress at most; with 1, none begins before the next result is asked for.
        cancel: ends calls in progress. It is called, and they are waited for, if this is closed early.
    """
    begun: deque[tuple[Name, Future[Result]]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="side-by-side") as pool:
        try:
            for name, call in calls:
                begun.append((name, pool.submit(call)))
                if len(begun) == at_once:
                    yield begun.popleft()
            yield from begun
        except BaseException:
            cancel()
            raise
