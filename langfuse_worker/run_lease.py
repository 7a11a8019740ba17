"""A run's lease: the time until which its process has promised to live, in a tag of the run.

Dagster asks pods and containers whether the process of a run still lives. Once a code server is gone, nobody
can be asked about the runs inside it: they would count as running, in their project's places, for hours.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
import structlog

log = structlog.get_logger()

LEASE_TAG = ".dagster/langfuse_lease_until"  # the prefix keeps it out of lists in the UI
_RENEWALS = 10  # in the time of a lease, so that clocks may differ by most of it


def renew(instance: dg.DagsterInstance, run_id: str, seconds: float) -> None:
    """Promise that the run's process lives for so many seconds. Where Dagster refuses, that is logged."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    try:
        instance.add_run_tags(run_id, {LEASE_TAG: until.isoformat(timespec="seconds")})
    except Exception as error:
        log.warning("run_lease_not_renewed", runId=run_id, error=str(error))


@contextmanager
def held(instance: dg.DagsterInstance, run_id: str, seconds: float) -> Iterator[None]:
    """Renew the run's lease, in a thread, while the context is open.

    Args:
        seconds: for how long each renewal holds.
    """
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(seconds / _RENEWALS):
            renew(instance, run_id, seconds)

    renew(instance, run_id, seconds)
    thread = threading.Thread(target=keep, name="run-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def lease_until(run: dg.DagsterRun) -> datetime | None:
    """Until when the run's process has promised to live, UTC; None for a run that never promised."""
    until = run.tags.get(LEASE_TAG)
    return datetime.fromisoformat(until) if until else None
