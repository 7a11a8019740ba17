"""Processes and what they have started."""

import os
import select
import signal
from contextlib import suppress

import psutil


def kill_tree(pid: int) -> None:
    """End a process and everything below it, the parents first so that they start nothing new.

    Returns once all have ended: until then Redis may give a job to a consumer that is being killed.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        children = children_of(pid)
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        ends = select.poll()  # not select, which knows the first 1 024 descriptors of a process only
        ends.register(ended, select.POLLIN)
        ends.poll()
        os.close(ended)
        for child in children:
            kill_tree(child)


def children_of(pid: int) -> list[int]:
    """Process ids of what a process has started, in any of its threads, and what has not ended."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []
