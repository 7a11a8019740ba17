"""How fast a catch-up goes over windows of few rows, into a bucket that takes its time to answer.

Hours of four tables with a trace in each, in turn:

- `a query a window`: each table of each window by a query of its own, one window after the other;
- `a day at once`: each day is read together, its windows go to the bucket one after the other;
- `side by side`: the product, which has several of them on their way.

The worker is a process of its own each time. The S3 server is moto behind a proxy in which each request
waits 20 ms; what ClickHouse took is from `system.query_log`.

    .venv/bin/python -m benchmarks.small_windows [--days 3] [--rounds 5]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.medians import medians
from benchmarks.server_cost import server_cost
from langfuse_export.exporter import WindowExporter
from langfuse_export.read_ahead import read_ahead
from langfuse_export.resources import ExportOptions
from langfuse_export.runs import SIDE_BY_SIDE
from langfuse_export.side_by_side import side_by_side
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency, Window
from langfuse_worker.settings import Settings
from tests.export.http.peak_memory import START, observations_exporter
from tests.rows import PROJECT, insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.s3 import S3Proxy, S3Server

BUCKET = "small-windows"
LATENCY_S = 0.02
FIRST = Frequency.DAILY.floor(START)

console = Console(width=120)


@dataclass(frozen=True)
class Way:
    """Whether days are read at once, and how many windows are on their way to the bucket."""

    reads_days: bool
    at_once: int


WAYS: Mapping[str, Way] = {
    "a query a window": Way(False, 1),
    "a day at once": Way(True, 1),
    "side by side": Way(True, SIDE_BY_SIDE),
}


@dataclass(frozen=True)
class Measured:
    """What a window took: wall time, CPU of the worker's process, CPU of ClickHouse's queries; ms."""

    wall_ms: float
    worker_ms: float
    clickhouse_ms: float


def windows_of(days: int) -> list[Window]:
    """The hours of so many days."""
    return list(Frequency.HOURLY.windows(FIRST, FIRST + days * Frequency.DAILY.length))


def export(way: Way, days: int, exporter: WindowExporter, scratch: Path) -> Measured:
    """Export everything; what ClickHouse took is not known here."""
    options = replace(ExportOptions.from_settings(Settings()), scratch=scratch)
    tables, windows = exporter.project.tables, windows_of(days)
    wall_s, cpu_s = time.monotonic(), time.process_time()
    for _, group in groupby(windows, key=lambda window: window.start.date()):
        day = list(group)
        done = {window: {} for window in day}
        with read_ahead(exporter, tables, done, options) if way.reads_days else nullcontext({}) as rows:
            calls: list[tuple[Window, Callable[[], object]]] = [
                (window, partial(exporter.export, window, tables, {}, rows.get(window))) for window in day
            ]
            for _, exported in side_by_side(calls, way.at_once, exporter.cancellation.cancel):
                exported.result()
    each = 1000 / len(windows)
    return Measured((time.monotonic() - wall_s) * each, (time.process_time() - cpu_s) * each, 0.0)


def worker(name: str, days: int, endpoint: str, scratch: Path) -> None:
    """The process that exports; prints what it took as JSON. Its run is named after the way."""
    destination = S3Server().store_config(BUCKET, endpoint=endpoint)
    exporter = observations_exporter(PROJECT, destination, Frequency.HOURLY, name)
    exporter.project = replace(exporter.project, tables=tuple(TABLES.values()))
    print(json.dumps(asdict(export(WAYS[name], days, exporter, scratch))))


def run(days: int, rounds: int, directory: Path) -> dict[str, Measured]:
    """Medians of each way."""
    found: dict[str, list[Measured]] = {name: [] for name in WAYS}
    windows = windows_of(days)
    with ClickHouseServer(directory / "server") as server, S3Server() as s3:
        insert(server.execute, "traces", [trace(str(window), window.start) for window in windows])
        with S3Proxy(s3, latency_s=LATENCY_S) as proxy:
            for round_number in range(rounds):
                for name, results in found.items():
                    s3.create_bucket(BUCKET)
                    results.append(_measure(name, days, server, proxy, directory))
                    console.print(f"round {round_number + 1}, {name}: {results[-1]}", style="dim")
                    assert len([key for key in s3.keys(BUCKET) if "/manifests/" in key]) == len(windows)
    return {name: medians(results) for name, results in found.items()}


def _measure(name: str, days: int, server: ClickHouseServer, proxy: S3Proxy, directory: Path) -> Measured:
    server.execute("TRUNCATE TABLE IF EXISTS system.query_log")
    arguments = ["--days", str(days), "--worker", name, proxy.url, str(directory / "scratch")]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.small_windows", *arguments],
        env=server.environment_of_a_worker,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    measured = Measured(**json.loads(ended.stdout.splitlines()[-1]))
    cost = server_cost(server, f"JSONExtractString(log_comment, 'run') = '{name}'")
    return replace(measured, clickhouse_ms=cost.cpu_s * 1000 / len(windows_of(days)))


def show(measured: Mapping[str, Measured]) -> None:
    """Print the figures."""
    table = RichTable(title="a window of four tables with one row, medians")
    for heading in ("", "ms", "windows a second", "worker CPU ms", "ClickHouse CPU ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, result in measured.items():
        figures = (result.wall_ms, 1000 / result.wall_ms, result.worker_ms, result.clickhouse_ms)
        table.add_row(name, *(f"{figure:.1f}" for figure in figures))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker:
        name, endpoint, scratch = chosen.worker
        worker(name, chosen.days, endpoint, Path(scratch))
        return
    with tempfile.TemporaryDirectory() as directory:
        show(run(chosen.days, chosen.rounds, Path(directory)))


if __name__ == "__main__":
    main()
