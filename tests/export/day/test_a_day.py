"""A day in which rows are late, changed and deleted and servers fail ends with what FINAL returns."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from langfuse_export.attempts import attempts_of_table
from langfuse_export.health.state import State
from langfuse_export.health.store import HealthStore
from langfuse_export.recorded_tables import RecordedTable
from langfuse_export.tables import OBSERVATIONS
from tests.export.day.deployment import BUCKET, Deployment
from tests.servers.clickhouse_http import Fault

STEP = timedelta(minutes=20)
HOUR = timedelta(hours=1)
# Eight rows, whose text no format makes smaller.
LARGE = """
INSERT INTO observations (id, project_id, type, start_time, input, created_at, updated_at, event_ts)
SELECT 'large' || number, '{project}', 'SPAN', '{at:%F %T}', randomPrintableASCII(1000000),
    now64(3), now64(3), now64(3)
FROM numbers(8)
"""


@pytest.mark.defect("D2", "D7", "D14", "D15")
@pytest.mark.timeout(900)
def test_the_union_of_the_objects_is_what_final_returns(deployment: Deployment, day: datetime) -> None:
    daemon, traffic, langfuse = deployment.daemon, deployment.traffic, deployment.langfuse

    live(deployment, day + 6 * HOUR)
    with clickhouse_dies_in_mid_stream(deployment, "steady"):
        live(deployment, day + 6 * HOUR + STEP)
    live(deployment, day + 9 * HOUR)
    deployment.deny("steady")
    live(deployment, day + 12 * HOUR)
    assert HealthStore(daemon.instance).read(["steady"])["steady"].state is State.STOPPED
    assert "denied" in langfuse.row("steady")["last_error"].lower()
    deployment.allow("steady")
    live(deployment, day + 13 * HOUR)
    live(deployment, day + 21 * HOUR, with_daemon=False)
    live(deployment, day + 24 * HOUR)
    daemon.advance(STEP)
    daemon.advance(STEP)
    traffic.send(day + 23 * HOUR, day + 24 * HOUR)  # the last ones are late for all
    daemon.settle()

    assert min(traffic.late, traffic.changed, traffic.deleted) > 10
    for project in deployment.catalog.projects:
        windows = deployment.closed(project)
        keys = {project.object_key(table, window) for window in windows for table in project.tables}
        assert deployment.keys(project) == keys | {project.manifest_key(window) for window in windows}
        for table in project.tables:
            assert deployment.union(project, table) == deployment.stored(project, table)
        assert [key for window in windows for key in deployment.differing_files(project, window)] == []
        assert "late" in {deployment.manifest(project, window).mode for window in windows}
    assert deployment.s3.open_uploads(BUCKET) == {}
    assert HealthStore(daemon.instance).read(["steady"]) == {}
    row = langfuse.row("steady")
    assert (row["last_sync_at"], row["last_error"]) == ((day + 24 * HOUR).replace(tzinfo=None), None)

    # What failed was the hour of the refusals, few times; what ClickHouse's death cut off was retried.
    failed = [run for run in daemon.asked if not run.success]
    assert {(run.first, run.last) for run in failed} == {(f"{day:%F}T08",) * 2}
    assert len(failed) < 6
    steady = deployment.catalog.project("steady")
    table, large = RecordedTable.of(steady, OBSERVATIONS), f"{day + 5 * HOUR:%Y-%m-%dT%H}"
    attempts = attempts_of_table(daemon.instance, table, [large], limit=10)
    assert {attempt.outcome for attempt in attempts} == {"exported", "retried"}


def live(deployment: Deployment, until: datetime, *, with_daemon: bool = True) -> None:
    """Let rows arrive and the daemon work up to a moment."""
    daemon = deployment.daemon
    while daemon.now < until:
        deployment.traffic.send(daemon.now, daemon.now + STEP)
        if with_daemon:
            daemon.advance(STEP)
        else:
            daemon.now += STEP


@contextmanager
def clickhouse_dies_in_mid_stream(deployment: Deployment, project: str) -> Iterator[None]:
    """The server is killed while it sends the 8 MB of the last hour's window, and started again."""
    server = deployment.clickhouse
    server.execute(LARGE.format(project=project, at=deployment.daemon.now - HOUR))
    server.break_next(Fault("stall", match="t.usage_details", after_bytes=2_000_000))

    def die() -> None:
        server.wait_for_running_exports(1)
        server.kill()
        server.start()

    death = threading.Thread(target=die)
    death.start()
    yield
    death.join()
