"""What listeners hear of runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from langfuse_export.history import History
from langfuse_export.project import ProjectExport
from langfuse_export.tables import TABLES
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import UNKNOWN_TABLE, ClickHouseError
from tests.export.dagster.deployment import NETWORK, START, Deployment, FlakyClickHouse
from tests.rows import trace


@dataclass
class Hearing:
    """Notes what it hears, and how far the history went at each window, counted in hours of 1 June."""

    heard: list[str] = field(default_factory=list)
    since: datetime = START

    def run_started(self, project: ProjectExport) -> None:
        """See `RunListener`."""
        self.heard.append("started")

    def window_exported(self, project: ProjectExport, window: Window, history: History) -> None:
        """See `RunListener`."""
        until = history.exported_until(project, self.since)
        self.heard.append(f"exported {window.start.hour}, all until {(until - START) // timedelta(hours=1)}")

    def run_failed(self, project: ProjectExport, errors: Sequence[Exception], retrying: bool) -> None:
        """See `RunListener`."""
        self.heard.append(f"failed, {retrying=}: {errors[0]}")

    def run_finished(self, project: ProjectExport, still_failing: bool) -> None:
        """See `RunListener`."""
        self.heard.append("finished, others fail" if still_failing else "finished")


@pytest.fixture
def hearing(deployment: Deployment) -> Hearing:
    """A listener of the deployment, which exports traces alone."""
    hearing = Hearing()
    deployment.projects = [deployment.project(tables=(TABLES["traces"],))]
    deployment.listeners = [hearing]
    return hearing


def test_a_run_that_exports_two_windows(deployment: Deployment, hearing: Hearing) -> None:
    assert deployment.run("2026-06-01T00", "2026-06-01T01").success
    assert hearing.heard == ["started", "exported 0, all until 1", "exported 1, all until 2", "finished"]


def test_windows_beyond_a_gap_do_not_count_until_it_is_closed(
    deployment: Deployment, hearing: Hearing
) -> None:
    deployment.run("2026-06-01T00", "2026-06-01T00")
    deployment.run("2026-06-01T02", "2026-06-01T09")
    deployment.run("2026-06-01T01", "2026-06-01T01")

    windows = [line for line in hearing.heard if "all until" in line]
    beyond = [f"exported {hour}, all until 1" for hour in range(2, 10)]
    assert windows == ["exported 0, all until 1", *beyond, "exported 1, all until 10"]


def test_a_window_counts_once_all_its_tables_are_exported(deployment: Deployment, hearing: Hearing) -> None:
    both = (TABLES["traces"], TABLES["scores"])
    deployment.projects = [deployment.project(tables=both)]

    deployment.run("2026-06-01T00", "2026-06-01T00", tables=both[:1])
    assert hearing.heard == ["started", "finished"]
    deployment.run("2026-06-01T00", "2026-06-01T00", tables=both[1:])

    assert hearing.heard[2:] == ["started", "exported 0, all until 1", "finished"]


def test_each_attempt_is_heard(deployment: Deployment, hearing: Hearing) -> None:
    deployment.insert("traces", trace("t", START))
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [ClickHouseError("reset", NETWORK)])

    assert deployment.run("2026-06-01T00", "2026-06-01T00").success

    assert [line.partition(":")[0] for line in hearing.heard] == [
        "started",
        "failed, retrying=True",
        "started",
        "exported 0, all until 1",
        "finished",
    ]


def test_a_failure_for_good_is_heard(deployment: Deployment, hearing: Hearing) -> None:
    error = ClickHouseError("Table traces does not exist", UNKNOWN_TABLE)
    deployment.clickhouse = FlakyClickHouse(deployment.engine, [error])

    assert not deployment.run("2026-06-01T00", "2026-06-01T00").success

    [started, failed] = hearing.heard
    assert started == "started"
    assert failed.startswith("failed, retrying=False")
    assert "Table traces does not exist" in failed


class Broken(Hearing):
    """Cannot listen."""

    def run_started(self, project: ProjectExport) -> None:
        """See `RunListener`."""
        raise RuntimeError("deaf")


def test_a_listener_that_fails_is_logged_and_fails_nothing(deployment: Deployment, hearing: Hearing) -> None:
    deployment.listeners = [Broken(), hearing]

    with capture_logs() as logs:
        assert deployment.run("2026-06-01T00", "2026-06-01T00").success

    assert hearing.heard[0] == "started"
    [failure] = [line for line in logs if line["event"] == "listener_failed"]
    assert (failure["listener"], failure["error"]) == ("Broken", "deaf")
