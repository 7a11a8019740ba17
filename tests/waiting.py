"""Waiting for what other processes do."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], state: Callable[[], str], timeout_s: float = 240) -> None:
    """Return once the condition holds, however slow the machine; raises TimeoutError with the state."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(state())
        time.sleep(0.05)
