"""ClickHouse and destinations that fail: a clear error, nothing half-written, and recovery."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langfuse_export.errors import CancelledError, ConflictError, WindowError, is_transient, reason_of
from langfuse_export.exported_table import ExportedTable
from langfuse_export.exporter import NoProgress
from langfuse_export.table_export import TableExport
from langfuse_export.tables import TABLES
from langfuse_export.window_source import Cancellation, WindowSource
from langfuse_export.windows import Window
from langfuse_worker.blobstore import StoreAccessError, StoreConfig, StoreError
from langfuse_worker.clickhouse import QueryLimits
from tests.export.http.exporting import HOUR, JSONL, Deployment
from tests.rows import observation, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault

MANY = 5000


@pytest.fixture
def crashing(tmp_path: Path) -> Iterator[Deployment]:
    """A deployment on a ClickHouse of its own, for tests that kill it."""
    with (
        ClickHouseServer(tmp_path / "server") as server,
        Deployment(server, tmp_path / "blobs") as deployment,
    ):
        deployment.insert("traces", *[trace(f"t{n}", input=f"{n}" * 50) for n in range(MANY)])
        yield deployment


class DuringTheStream(NoProgress):
    """Does something once, when the first bytes have come from ClickHouse."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._once = threading.Lock()

    def bytes_read(self, count: int) -> None:
        """See `Progress`."""
        if self._once.acquire(blocking=False):
            self._action()


def test_clickhouse_that_is_down_is_named_with_its_address(crashing: Deployment) -> None:
    crashing.server.kill()

    with pytest.raises(WindowError) as failure:
        crashing.export()

    assert f"ClickHouse at {crashing.server.url}: " in str(failure.value)
    assert str(failure.value).count("Connection refused") == 1  # of all tables
    assert crashing.server.password not in str(failure.value)
    assert reason_of(failure.value) == "clickhouse_unavailable"
    assert is_transient(failure.value)


def test_clickhouse_that_crashes_in_mid_stream_leaves_nothing_and_the_next_run_succeeds(
    crashing: Deployment,
) -> None:
    crashing.server.break_next(Fault("stall", match="t.input", after_bytes=100_000))
    exporter = crashing.exporter()
    exporter.progress = DuringTheStream(crashing.server.kill)
    with pytest.raises(WindowError) as failure:
        exporter.export(HOUR, [TABLES["traces"]])
    assert reason_of(failure.value) == "clickhouse_unavailable"
    assert crashing.files() == []

    crashing.server.start()
    crashing.export()

    assert len(crashing.ids("traces")) == MANY


def test_a_wrong_password_is_permanent_and_not_shown(deployment: Deployment) -> None:
    wrong = deployment.with_(environment={"CLICKHOUSE_PASSWORD": "not-the-secret"})

    with pytest.raises(WindowError) as failure:
        wrong.export()

    assert "Authentication failed" in str(failure.value)
    assert "not-the-secret" not in str(failure.value)
    assert not is_transient(failure.value)


@pytest.mark.parametrize(("code", "reason"), [(241, "clickhouse_memory"), (159, "clickhouse_timeout")])
def test_a_count_beyond_its_memory_or_time_fails_as_such(
    deployment: Deployment, code: int, reason: str
) -> None:
    """It reads no payload, so that parts of it would hardly do better."""
    deployment.server.break_next(Fault("refuse", match="count()", code=code))

    with pytest.raises(WindowError) as failure:
        deployment.export(tables=[TABLES["observations"]])

    assert reason_of(failure.value) == reason
    assert is_transient(failure.value)
    assert deployment.files() == []


def test_a_table_that_does_not_exist_is_permanent(deployment: Deployment) -> None:
    elsewhere = deployment.with_(environment={"CLICKHOUSE_DB": "system"})

    with pytest.raises(WindowError, match="traces"):
        elsewhere.export()

    with pytest.raises(WindowError) as failure:
        elsewhere.export(tables=[TABLES["traces"]])
    assert reason_of(failure.value) == "clickhouse_refused"
    assert not is_transient(failure.value)


def test_a_cancelled_export_kills_its_query_and_commits_nothing(deployment: Deployment) -> None:
    deployment.insert("traces", *[trace(f"t{n}", input=f"{n}" * 50) for n in range(MANY)])
    deployment.encoding = JSONL  # more bytes than the pipes between engine and server hold
    deployment.server.break_next(Fault("stall", match="t.input", after_bytes=100_000))
    cancellation = Cancellation(deployment.source)
    started = threading.Event()
    source = WindowSource(deployment.source, deployment.project, TABLES["traces"], HOUR, None, cancellation)
    export = TableExport(source, deployment.store, lambda _: started.set())
    failures: list[Exception] = []

    def run() -> None:
        try:
            export.run()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(120)
    deployment.server.wait_for_running_exports(1)
    cancellation.cancel()
    deployment.server.wait_for_running_exports(0)
    deployment.server.break_next()
    thread.join()

    assert [type(error) for error in failures] == [CancelledError]
    assert deployment.files() == []


def test_a_failing_destination_kills_the_query_that_feeds_it(deployment: Deployment) -> None:
    deployment.insert("traces", *[trace(f"t{n}", input=f"{n}" * 50) for n in range(MANY)])
    deployment.encoding = JSONL
    deployment.server.break_next(Fault("stall", match="t.input", after_bytes=100_000))

    def fail() -> None:
        raise StoreError("the destination broke")

    exporter = deployment.exporter()
    exporter.progress = DuringTheStream(fail)

    with pytest.raises(WindowError, match="the destination broke") as failure:
        exporter.export(HOUR, [TABLES["traces"]])

    assert reason_of(failure.value) == "destination_unavailable"
    deployment.server.wait_for_running_exports(0)
    kills = [request for request in deployment.server.requests if request.sql.startswith("KILL QUERY")]
    assert kills[-1].parameters["param_id"] in {
        r.parameters.get("query_id") for r in deployment.server.requests if "t.input" in r.sql
    }


@pytest.mark.defect("D12")
def test_d12_two_runs_of_one_window_end_with_a_manifest_of_the_objects_that_are_there(
    deployment: Deployment,
) -> None:
    deployment.insert("traces", trace("t1"))
    second = deployment.exporter()
    last = deployment.project.tables[-1].name

    class MeanwhileAnotherRun(NoProgress):
        """Another run exports the window between the first run's objects and its manifest."""

        def table_exported(self, window: Window, exported: ExportedTable) -> None:
            """See `Progress`."""
            if exported.table == last:
                deployment.insert("traces", trace("t2"))
                second.export(window, deployment.project.tables)

    first = deployment.exporter()
    first.progress = MeanwhileAnotherRun()
    # Side by side, another table of the first run could come between the second run's object and manifest.
    first.table_concurrency = 1

    with pytest.raises(ConflictError):
        first.export(HOUR, deployment.project.tables)

    assert deployment.ids("traces") == ["t1", "t2"]
    assert deployment.manifest().files[1].row_count == 2


def test_the_directory_of_a_file_destination_cannot_be_made(deployment: Deployment) -> None:
    deployment.blobs.write_text("a file where the directory should be")
    with pytest.raises(StoreAccessError, match="cannot make the directory"):
        deployment.export()


def test_rows_that_arrive_while_a_window_streams_are_no_error(deployment: Deployment) -> None:
    deployment.insert("observations", observation("o1"))
    exporter = deployment.exporter()
    exporter.progress = DuringTheStream(lambda: deployment.insert("observations", observation("o2")))

    result = exporter.export(HOUR, [TABLES["observations"]])

    assert result.exported["observations"].file.row_count in (1, 2)


def test_limits_come_from_the_settings_and_nothing_else(deployment: Deployment) -> None:
    assert deployment.project.limits == QueryLimits(10, 2, 20_000_000_000, 3600)
    assert isinstance(deployment.project.destination, StoreConfig)
