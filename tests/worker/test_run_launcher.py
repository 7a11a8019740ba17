"""What run monitoring hears of runs whose processes are gone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.launcher.base import WorkerStatus
from structlog.testing import capture_logs

from langfuse_worker.run_launcher import LeasedRunLauncher
from langfuse_worker.run_lease import LEASE_TAG, held, lease_until, renew
from tests.waiting import wait_for

AN_HOUR = timedelta(hours=1)


@dg.job
def exports() -> None:
    """A job."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance with the launcher of the product's dagster.yaml."""
    launcher = {"module": LeasedRunLauncher.__module__, "class": LeasedRunLauncher.__name__}
    with dg.instance_for_test(overrides={"run_launcher": launcher}) as instance:
        yield instance


def started_run(
    instance: dg.DagsterInstance, started: datetime, lease: datetime | None = None
) -> dg.DagsterRun:
    """A run that began then, and has promised to live until the end of the lease."""
    tags = {LEASE_TAG: lease.isoformat()} if lease else {}
    run = instance.create_run_for_job(exports, tags=tags)
    event = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name)
    instance.run_storage.handle_run_event(run.run_id, event, update_timestamp=started)
    return run_of(instance, run.run_id)


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """The run as it is now."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("started", "lease", "status"),
    [
        (-AN_HOUR, AN_HOUR, WorkerStatus.RUNNING),
        (-2 * AN_HOUR, -AN_HOUR, WorkerStatus.FAILED),
        (0 * AN_HOUR, -AN_HOUR, WorkerStatus.RUNNING),
        (-2 * AN_HOUR, None, WorkerStatus.RUNNING),
    ],
    ids=["alive", "killed", "a retry with the lease of the run that was killed", "of another kind"],
)
def test_a_run_counts_as_killed_once_its_own_lease_is_over(
    instance: dg.DagsterInstance, started: timedelta, lease: timedelta | None, status: WorkerStatus
) -> None:
    now = datetime.now(UTC)
    run = started_run(instance, now + started, now + lease if lease else None)
    assert instance.run_launcher.supports_check_run_worker_health
    health = instance.run_launcher.check_run_worker_health(run)
    assert health.status is status
    assert ("it was killed" in str(health)) == (status is WorkerStatus.FAILED)


def test_a_lease_is_renewed_while_the_run_works(instance: dg.DagsterInstance) -> None:
    run = started_run(instance, datetime.now(UTC))

    def until() -> datetime:
        found = lease_until(run_of(instance, run.run_id))
        assert found is not None
        return found

    with held(instance, run.run_id, 10):
        first = until()
        wait_for(lambda: until() > first, lambda: f"still {first}")


def test_a_lease_that_dagster_refuses_stops_nobody(instance: dg.DagsterInstance) -> None:
    with capture_logs() as logs:
        renew(instance, "no-such-run", 60)
    assert [(line["event"], line["runId"]) for line in logs] == [("run_lease_not_renewed", "no-such-run")]
