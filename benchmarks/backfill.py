"""What Dagster adds to each window of a backfill over several projects.

All hours of some days, of all projects and with four tables each, are exported twice, with a trace in each:

- by themselves, one project and day after the other, in a process without Dagster, as a run does it;
- as one backfill, launched as the UI does it, under `langfuse-worker start`, until it is completed.

What the second takes beyond the first is Dagster's: planning, launching, loading of the code location in
each run, recording. Compared is the CPU of all processes, that of the UI and the schedules included, and of
Postgres, if Dagster's storage is there.

    .venv/bin/python -m benchmarks.backfill [--projects 10] [--days 7] [--storage sqlite|postgres]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

from benchmarks.projects import deployment
from langfuse_export.catalog import load_catalog
from langfuse_export.exporter import WindowExporter
from langfuse_export.naming import asset_key
from langfuse_export.prices import AttemptPrices
from langfuse_export.project import ProjectExport
from langfuse_export.read_ahead import read_ahead
from langfuse_export.resources import ExportOptions
from langfuse_export.telemetry import build_telemetry
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.clickhouse import connect
from langfuse_worker.settings import Settings, settings
from tests.rows import insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.dagster import DagsterServer
from tests.servers.postgres import PostgresServer

GOAL_MS = 50
IDLE_S = 30
_AGO_DAYS = 60  # beyond what steady schedules look back for

CODE_SERVER, RUNS = "code server", "runs"
# What the command line of a process tells of it; the rest are runs.
_PARTS = {
    "dagster_webserver": "webserver",
    "dagster._daemon": "daemon",
    "code-server": CODE_SERVER,
    "api grpc": CODE_SERVER,
    "dagster dev": "start",
    "langfuse-worker start": "start",
}

console = Console(width=120)


@dataclass(frozen=True)
class Result:
    """What exporting the windows took; CPU in seconds.

    Attributes:
        windows: of all projects; each has four tables.
        runs: of the backfill.
        dagster_cpu_s: by part.
        idle_cpu_s: what all processes of Dagster take in a second in which nothing is asked of them.
    """

    windows: int
    runs: int
    wall_s: float
    alone_cpu_s: float
    dagster_cpu_s: Mapping[str, float]
    postgres_cpu_s: float
    idle_cpu_s: float

    @property
    def total_cpu_s(self) -> float:
        """CPU seconds of Dagster and its Postgres."""
        return sum(self.dagster_cpu_s.values()) + self.postgres_cpu_s

    @property
    def overhead_ms(self) -> float:
        """CPU a window beyond that of the export by itself."""
        return (self.total_cpu_s - self.alone_cpu_s) / self.windows * 1000


def windows_of(days: int) -> list[Window]:
    """The hours of so many days, some weeks ago."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = today - timedelta(days=_AGO_DAYS)
    return list(Frequency.HOURLY.windows(first, first + timedelta(days=days)))


def measure_alone(days: int) -> None:
    """What a process of its own does: exports everything without Dagster, prints the CPU seconds of that."""
    options, catalog = ExportOptions.from_settings(settings()), load_catalog(settings())
    exporters = [_exporter(project) for project in catalog.projects]
    before = time.process_time()
    for exporter in exporters:
        for _, day in groupby(windows_of(days), key=lambda window: window.start.date()):
            _export_day(exporter, list(day), options)
    print(time.process_time() - before)


def _exporter(project: ProjectExport) -> WindowExporter:
    source, store = connect(settings()).with_limits(project.limits), BlobStore(project.destination)
    prices = AttemptPrices(None, project.project_id)
    return WindowExporter(source, store, project, build_telemetry(settings()), "catchup", prices)


def _export_day(exporter: WindowExporter, windows: Sequence[Window], options: ExportOptions) -> None:
    tables = exporter.project.tables
    with read_ahead(exporter, tables, {window: {} for window in windows}, options) as rows:
        for window in windows:
            exporter.export(window, tables, {}, rows.get(window))


def run(projects: int, days: int, postgres: PostgresServer | None, directory: Path) -> Result:
    """Measure both on one ClickHouse server."""
    windows = windows_of(days)
    with ClickHouseServer(directory / "clickhouse") as server:
        rows = [
            trace(f"{number} {window}", window.start, project_id=f"project{number}")
            for number in range(projects)
            for window in windows
        ]
        insert(server.execute, "traces", rows)
        start = windows[0].start.date()
        alone = deployment(directory / "alone", projects, server, start)
        command = [sys.executable, "-m", "benchmarks.backfill", "--measure-alone", "--days", str(days)]
        done = subprocess.run(command, env=os.environ | alone, check=True, stdout=subprocess.PIPE)
        storage = postgres.dagster_storage("backfill") if postgres else None
        environment = deployment(directory / "dagster", projects, server, start, storage)
        result = _backfill(environment, projects, windows, postgres)
    return replace(result, alone_cpu_s=float(done.stdout.split()[-1]))


def _backfill(
    environment: dict[str, str], projects: int, windows: Sequence[Window], postgres: PostgresServer | None
) -> Result:
    keys = [Frequency.HOURLY.key(window) for window in windows]
    with DagsterServer(Path(environment["LANGFUSE_HOME"]), environment) as dagster:
        dagster.wait_for(lambda: len(dagster.projects()) == projects)
        catalog = load_catalog(Settings(**environment))  # type: ignore[arg-type]
        assets = [asset_key(project, table) for project in catalog.projects for table in project.tables]
        started_by = dagster.process.pid
        idle = cpu_by_part(started_by)
        time.sleep(IDLE_S)
        before, of_postgres = cpu_by_part(started_by), _cpu_s(postgres)
        started = time.monotonic()
        backfill = dagster.launch(assets, keys)
        _follow(dagster, backfill, len(keys) * len(assets))
        wall_s = time.monotonic() - started
        return Result(
            windows=len(keys) * projects,
            runs=len(dagster.runs(dagster__backfill=backfill)),
            wall_s=wall_s,
            alone_cpu_s=0.0,
            dagster_cpu_s={part: s - before[part] for part, s in cpu_by_part(started_by).items()},
            postgres_cpu_s=_cpu_s(postgres) - of_postgres,
            idle_cpu_s=(sum(before.values()) - sum(idle.values())) / IDLE_S,
        )


def _cpu_s(postgres: PostgresServer | None) -> float:
    return sum(cpu_by_part(postgres.pid).values()) if postgres else 0.0


def _follow(dagster: DagsterServer, backfill: str, partitions: int) -> None:
    """Return once the backfill has exported everything."""
    with Progress(console=console) as shown:
        task = shown.add_task("table partitions", total=partitions)

        def completed() -> bool:
            progress = dagster.progress(backfill)
            assert progress.failed == 0
            shown.update(task, completed=progress.materialized)
            time.sleep(1)  # each look costs the webserver some CPU
            return progress.status == "COMPLETED_SUCCESS"

        dagster.wait_for(completed, 3600)


def cpu_by_part(pid: int) -> dict[str, float]:
    """CPU seconds of a process and of all that it has started, ended ones too, by the part of Dagster."""
    root, parts = psutil.Process(pid), dict.fromkeys([*_PARTS.values(), RUNS], 0.0)
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has ended, and its parent knows what it took
            times, command = process.cpu_times(), ""
            with suppress(psutil.ZombieProcess):  # a run that has just ended
                command = " ".join(process.cmdline())
            part = next((part for mark, part in _PARTS.items() if mark in command), RUNS)
            parts[part] += times.user + times.system
            # Runs are started by the process that serves the code location.
            parts[RUNS if part == CODE_SERVER else part] += times.children_user + times.children_system
    return parts


def show(result: Result) -> None:
    """Print the figures."""
    table = RichTable(
        title=f"{result.windows} windows with four tables, {result.runs} runs, {result.wall_s:.0f} s"
    )
    for heading in ("", "CPU s", "ms a window"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {
        "exported by themselves": result.alone_cpu_s,
        "as a backfill": result.total_cpu_s,
        **{f"  {part}": seconds for part, seconds in result.dagster_cpu_s.items()},
        "  Postgres": result.postgres_cpu_s,
    }
    for name, seconds in rows.items():
        table.add_row(name, f"{seconds:.1f}", f"{seconds / result.windows * 1000:.1f}")
    table.add_row("overhead", "", f"{result.overhead_ms:.1f} (goal {GOAL_MS})")
    idle_s = result.idle_cpu_s * result.wall_s
    table.add_row("of it what Dagster takes idle", f"{idle_s:.1f}", f"{idle_s / result.windows * 1000:.1f}")
    console.print(table)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--projects", type=int, default=10)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--measure-alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_alone:
        measure_alone(arguments.days)
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        is_postgres = arguments.storage == "postgres"
        postgres = stack.enter_context(PostgresServer()) if is_postgres else None
        show(run(arguments.projects, arguments.days, postgres, directory))


if __name__ == "__main__":
    main()
