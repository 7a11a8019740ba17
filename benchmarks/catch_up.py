"""What it takes to catch up on a day of a table that ClickHouse sorts by day: one object a window, in S3.

In turn, on the same rows, with the bytes passing through the worker and with `transfer: server`:

- `a query a window`: as if each window were the only one; with a daily window there is nothing else;
- `split`: the product's, one read of the day that the worker or ClickHouse splits.

The worker is a process of its own each time, the S3 server is moto. What ClickHouse took is from
`system.query_log`.

    .venv/bin/python -m benchmarks.catch_up [--rounds 3] [--plot docs/catch-up.png]
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.catch_up_worker import DAY, WAYS, Taken, Work
from benchmarks.medians import medians
from benchmarks.server_cost import server_cost
from benchmarks.throughput import fill
from langfuse_export.windows import Frequency
from tests.export.http.server_mode import BUCKET, COLLECTION, writing_to_s3
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.s3 import REGION, S3Server

GOAL_BYTES = 1.2
BUFFER = "LANGFUSE_BLOB_STORAGE_EXPORT_CATCHUP_BUFFER_BYTES"
# An eighth of the default, so that it is smaller than these days as the default is smaller than real ones.
BUFFER_BYTES = 16 << 20

console = Console(width=140)


@dataclass(frozen=True)
class Case:
    """A day: its rows, the words of text in each (8 bytes a word), its windows."""

    name: str
    rows: int
    words: int
    frequency: Frequency = Frequency.HOURLY

    @property
    def windows(self) -> int:
        """How many the day has."""
        return (DAY.end - DAY.start) // self.frequency.length

    @property
    def ways(self) -> list[str]:
        """The ways that are compared: a day of one window cannot be split."""
        return [way for way in WAYS if self.windows > 1 or not way.startswith("split")]


CASES = (
    Case("5 KB a row, one window", 10_000, 600, Frequency.DAILY),
    Case("5 KB a row, 24 windows", 10_000, 600),
    Case("200 KB a row, 24 windows", 250, 24_000),
    Case("200 KB a row, 72 windows", 250, 24_000, Frequency.EVERY_20_MINUTES),
)


@dataclass(frozen=True)
class Measured:
    """One catch-up, or the medians of several.

    Attributes:
        wall_s: seconds.
        worker_cpu_s, server_cpu_s: CPU seconds of the worker's process, and of ClickHouse's queries.
        worker_mb, server_mb: peak memory of the worker's process, and of ClickHouse's heaviest query.
        scans: what ClickHouse read, one read of all columns of the day being 1.
        objects: how many were written.
        object_mb: all of them together.
        groups: Parquet row groups in an object, on average.
    """

    wall_s: float
    worker_cpu_s: float
    server_cpu_s: float
    worker_mb: float
    server_mb: float
    scans: float
    objects: float
    object_mb: float
    groups: float


def run(cases: Sequence[Case], rounds: int, directory: Path) -> dict[str, dict[str, Measured]]:
    """Medians of every way in every case; each case's are printed when they are there."""
    measured: dict[str, dict[str, Measured]] = {}
    with S3Server() as s3:
        for case in cases:
            measured[case.name] = run_case(case, rounds, directory / f"{len(measured)}", s3)
            show(case, measured[case.name])
    return measured


def run_case(case: Case, rounds: int, directory: Path, s3: S3Server) -> dict[str, Measured]:
    """Medians of every way, on a server of its own."""
    found: dict[str, list[Measured]] = {way: [] for way in case.ways}
    with writing_to_s3(directory / "server", s3.url) as server:
        fill(server, case.rows, case.words, DAY)
        server.execute("SYSTEM STOP MERGES observations")
        server.execute("SELECT * FROM observations FORMAT Null", {"log_comment": "scan"})
        scan_bytes = server_cost(server, "log_comment = 'scan'").read_bytes
        for round_number in range(rounds):
            for way, results in found.items():
                results.append(measure(case, way, f"{way} {round_number}", scan_bytes, directory, server, s3))
                console.print(f"{case.name}, round {round_number + 1}, {way}: {results[-1]}", style="dim")
    return {way: medians(results) for way, results in found.items()}


def measure(
    case: Case,
    way: str,
    run_id: str,
    scan_bytes: float,
    directory: Path,
    server: ClickHouseServer,
    s3: S3Server,
) -> Measured:
    """Catch up once, and check that no row is missing."""
    s3.create_bucket(BUCKET)
    work = Work(way, run_id, case.frequency, BUCKET, s3.url, REGION, str(directory / "scratch"), COLLECTION)
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.catch_up_worker", json.dumps(asdict(work))],
        env={**server.environment_of_a_worker, BUFFER: str(BUFFER_BYTES)},
        check=True,
        stdout=subprocess.PIPE,
    )
    taken = Taken(**json.loads(ended.stdout.splitlines()[-1]))
    objects = [s3.read(BUCKET, key) for key in s3.keys(BUCKET) if key.endswith(".parquet")]
    footers = [pq.ParquetFile(io.BytesIO(content)).metadata for content in objects]
    if (rows := sum(footer.num_rows for footer in footers)) != case.rows:
        raise RuntimeError(f"{run_id}: the objects hold {rows} rows, ClickHouse {case.rows}")
    cost = server_cost(server, f"JSONExtractString(log_comment, 'run') = '{run_id}'")
    return Measured(
        wall_s=taken.wall_s,
        worker_cpu_s=taken.cpu_s,
        server_cpu_s=cost.cpu_s,
        worker_mb=taken.peak_bytes / 1e6,
        server_mb=cost.peak_bytes / 1e6,
        scans=cost.read_bytes / scan_bytes,
        objects=len(objects),
        object_mb=sum(map(len, objects)) / 1e6,
        groups=sum(footer.num_row_groups for footer in footers) / len(footers),
    )


def show(case: Case, measured: Mapping[str, Measured]) -> None:
    """Print the table of a case."""
    table = RichTable(title=f"{case.name}: {case.rows:,} rows")
    table.add_column("")
    read = f"scans read, goal {GOAL_BYTES}"
    for heading in (read, "ClickHouse CPU s", "peak MB", "worker CPU s", "peak MB", "wall s"):
        table.add_column(heading, justify="right")
    for heading in ("objects", "MB", "row groups each"):
        table.add_column(heading, justify="right")
    for way, result in measured.items():
        table.add_row(
            way,
            f"{result.scans:.2f}",
            f"{result.server_cpu_s:.1f}",
            f"{result.server_mb:.0f}",
            f"{result.worker_cpu_s:.1f}",
            f"{result.worker_mb:.0f}",
            f"{result.wall_s:.1f}",
            f"{result.objects:.0f}",
            f"{result.object_mb:.0f}",
            f"{result.groups:.1f}",
        )
    console.print(table)


def plot(measured: Mapping[str, Mapping[str, Measured]], path: Path) -> None:
    """Draw CPU and memory of both sides, and wall time: a row a case, a bar a way."""
    figure, grid = plt.subplots(
        len(measured), 3, figsize=(12, 2.2 * len(measured)), layout="constrained", squeeze=False
    )
    grey, blue = "#9aa5b1", "#2f6fdb"
    for row, (name, ways) in zip(grid, measured.items(), strict=True):
        labels, results = list(ways), list(ways.values())
        for axes, title, server, worker in (
            (row[0], "CPU seconds", [r.server_cpu_s for r in results], [r.worker_cpu_s for r in results]),
            (row[1], "peak memory, MB", [r.server_mb for r in results], [r.worker_mb for r in results]),
        ):
            axes.barh(labels, server, color=grey, label="ClickHouse")
            axes.barh(labels, worker, left=server, color=blue, label="worker")
            axes.set_title(title, fontsize=9)
        row[2].barh(labels, [r.wall_s for r in results], color=grey)
        row[2].set_title("wall seconds", fontsize=9)
        row[0].set_ylabel(name.replace(", ", "\n"), fontsize=9)
        for axes in row:
            axes.invert_yaxis()
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        for axes in row[1:]:
            axes.set_yticklabels([])
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--case", type=int, nargs="*", help="numbers of the cases, from 0; all by default")
    arguments.add_argument("--plot", type=Path)
    arguments.add_argument("--json", type=Path, help="keep the medians in this file")
    options = arguments.parse_args()
    cases = [CASES[number] for number in options.case] if options.case else CASES
    with tempfile.TemporaryDirectory() as directory:
        measured = run(cases, options.rounds, Path(directory))
    if options.plot:
        plot(measured, options.plot)
    if options.json:
        content = {name: {way: asdict(r) for way, r in ways.items()} for name, ways in measured.items()}
        options.json.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
