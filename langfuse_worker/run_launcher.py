"""Launches runs inside code servers, as Dagster does by default, and tells when their processes are gone."""

from datetime import UTC, datetime

from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.dagster_run import DagsterRun

from langfuse_worker.run_lease import lease_until


class LeasedRunLauncher(DefaultRunLauncher):
    """Says of a run whose lease is over that its process is gone, so that Dagster's run monitoring fails it.

    A failed run frees its places, and is retried as `run_retries` says.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """FAILED once the lease is over. Runs without a lease are left to `max_runtime_seconds`."""
        until, now = lease_until(run), datetime.now(UTC)
        if until is None or now < until or self._is_inherited(run, until):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        message = (
            f"nothing was heard of its process, which had its lease until {until:%F %T} UTC; it was killed"
        )
        return CheckRunHealthResult(WorkerStatus.FAILED, message)

    def _is_inherited(self, run: DagsterRun, until: datetime) -> bool:
        """Whether the lease is that of the run that this one retries: Dagster copies tags."""
        record = self._instance.get_run_record_by_id(run.run_id)
        return record is None or record.start_time is None or until.timestamp() < record.start_time
