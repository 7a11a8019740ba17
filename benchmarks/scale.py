"""What many projects cost before anything is exported: loading them, a schedule's tick, the pages of the UI.

For each number of projects, with four tables and a year of hourly windows each and no history:

- `load`: CPU of a process that imports the code location and builds it, as a code server does, its snapshot;
- `run`: CPU of the process of a run that exports a window of one project, without rows;
- `tick`: CPU of one evaluation of the hourly schedule, which asks for a run of each project;
- `ready`: seconds from `langfuse-worker start` until the UI lists all assets;
- the webserver's answers to what its pages ask for, medians of five; the first answer is left out.

Each number is measured with every storage of Dagster that is asked for, in one run.

    .venv/bin/python -m benchmarks.scale [--projects 10 100 500] [--storage sqlite postgres] \\
        [--page docs/benchmarks.md]
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.projects import deployment
from langfuse_export import definitions
from langfuse_export.catalog import load_catalog
from langfuse_export.naming import asset_key, job_name
from langfuse_worker.settings import settings
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.dagster import DagsterServer, command_of_a_run
from tests.servers.postgres import PostgresServer

ANSWERS = 5
FIRST_WINDOW = (datetime.now(UTC) - timedelta(days=365)).date()
BEGIN, END = "<!-- figures of benchmarks.scale -->", "<!-- end of them -->"

# What the pages of the UI ask for, less what they show only in parts.
PAGES: Mapping[str, str] = {
    "list of assets": """{ assetNodes { id assetKey { path } groupName kinds opNames isPartitioned description
      owners { __typename } tags { key value } repository { id name location { name } } } }""",
    "graph of assets": """{ assetNodes { id assetKey { path } groupName jobNames isExecutable isMaterializable
      dependencyKeys { path } dependedByKeys { path } hasAssetChecks } }""",
    "an asset and its windows": """{ assetNodeOrError(assetKey: {path: ["langfuse", "project0", "traces"]}) {
      ... on AssetNode { id description partitionStats { numPartitions numMaterialized }
      partitionKeys assetPartitionStatuses {
      ... on TimePartitionStatuses { ranges { status startKey endKey } } } } } }""",
    "list of runs": "{ runsOrError(limit: 30) { ... on Runs { results { runId status startTime } } } }",
    "list of backfills": """{ partitionBackfillsOrError(limit: 30) { ... on PartitionBackfills { results {
      id status numPartitions } } } }""",
    "schedules and sensors": """{ repositoriesOrError { ... on RepositoryConnection { nodes {
      schedules { name scheduleState { status } } sensors { name sensorState { status } } } } } }""",
}

console = Console(width=120)


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a process that loads the code location, and bytes of what it tells Dagster."""

    load_s: float
    tick_s: float
    snapshot_bytes: int


def measure_location() -> None:
    """What a process of its own does: loads the location, evaluates its schedule, prints a `Cost`."""
    loaded = definitions.defs()
    assert isinstance(loaded, dg.Definitions)
    repository = loaded.get_repository_def()
    snapshot = serialize_value(RepositorySnap.from_def(repository))
    load_s = time.process_time()
    [schedule] = repository.schedule_defs
    resources = {name: repository.get_top_level_resources()[name] for name in schedule.required_resource_keys}
    with dg.instance_for_test() as instance:
        before = time.process_time()
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(UTC),
            repository_def=repository,
            resources=resources,
        ) as context:
            assert schedule.evaluate_tick(context).run_requests
        tick_s = time.process_time() - before
    print(load_s, tick_s, len(snapshot))


def measure_run() -> None:
    """What a process of its own does: has a run executed as a pod does, prints the CPU seconds of that."""
    project, *_ = load_catalog(settings()).projects
    assets = {asset_key(project, table) for table in project.tables}
    window = project.frequency.newest_closed(datetime.now(UTC))
    with dg.DagsterInstance.get() as instance:
        command = command_of_a_run(
            instance, job_name(project.frequency), assets, project.frequency.key(window)
        )
        subprocess.run(command, check=True, capture_output=True)
        assert [run.is_success for run in instance.get_runs()] == [True]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(used.ru_utime + used.ru_stime)


def measure(projects: int, storage: Mapping[str, object] | None, server: ClickHouseServer) -> dict[str, str]:
    """The figures of a deployment with so many projects, by what they are.

    Args:
        storage: what dagster.yaml says of Dagster's own storage; None is SQLite.
    """
    with tempfile.TemporaryDirectory() as directory:
        environment = deployment(Path(directory), projects, server, FIRST_WINDOW, storage)
        load_s, tick_s, snapshot = _measured("--measure-location", environment)[-3:]
        cost = Cost(float(load_s), float(tick_s), int(snapshot))
        started = time.monotonic()
        with DagsterServer(Path(environment["LANGFUSE_HOME"]), environment) as dagster:
            dagster.wait_for(lambda: len(dagster.projects()) == projects)
            ready_s = time.monotonic() - started
            answers = {page: _answer_ms(dagster, query) for page, query in PAGES.items()}
        run_s = float(_measured("--measure-run", environment)[-1])
    return {
        "load the code location, CPU": f"{cost.load_s:.1f} s",
        "its snapshot": f"{cost.snapshot_bytes / 1e6:.1f} MB",
        "a run that exports one project, CPU": f"{run_s:.1f} s",
        "the hourly schedule's tick, CPU": f"{cost.tick_s:.2f} s",
        "`langfuse-worker start` until the UI lists the assets": f"{ready_s:.0f} s",
        **{f"answer: {page}": f"{milliseconds:.0f} ms" for page, milliseconds in answers.items()},
    }


def _measured(what: str, environment: Mapping[str, str]) -> list[str]:
    """The words that a process of this module prints in the end."""
    command = [sys.executable, "-m", "benchmarks.scale", what]
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.split()


def _answer_ms(dagster: DagsterServer, query: str) -> float:
    took: list[float] = []
    for _ in range(ANSWERS + 1):
        started = time.monotonic()
        assert dagster.query(query), query
        took.append((time.monotonic() - started) * 1000)
    return median(took[1:])


def rows_of(figures: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """The table: what was measured, and a column for each number of projects and storage."""
    names = list(next(iter(figures.values())))
    return [[name, *(column[name] for column in figures.values())] for name in names]


def write(page: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Replace the figures in the page of the documentation."""
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text, count = re.subn(
        f"{BEGIN}.*{END}", f"{BEGIN}\n{table}\n{END}", page.read_text("utf-8"), flags=re.DOTALL
    )
    if not count:
        raise ValueError(f"{page} has no place for the figures: put {BEGIN} and {END} into it")
    page.write_text(text, "utf-8")


def main() -> None:
    """Measure, print, and write into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--projects", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--storage", nargs="+", choices=("sqlite", "postgres"), default=["sqlite"])
    parser.add_argument("--page", type=Path)
    parser.add_argument("--measure-location", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure-run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_location:
        measure_location()
        return
    if arguments.measure_run:
        measure_run()
        return
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(ClickHouseServer(Path(directory)))
        postgres = stack.enter_context(PostgresServer()) if "postgres" in arguments.storage else None
        figures = {
            f"{projects}, {name}": measure(
                projects,
                postgres.dagster_storage(f"scale{projects}") if postgres and name == "postgres" else None,
                server,
            )
            for projects in arguments.projects
            for name in arguments.storage
        }
    header, rows = ["projects, storage", *figures], rows_of(figures)
    table = RichTable(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if arguments.page:
        write(arguments.page, header, rows)


if __name__ == "__main__":
    main()
