"""How fast one large window is exported, against ClickHouse writing the same Parquet file itself.

Three things run in turn on the same rows, several times; medians are reported:

- `clickhouse`: INSERT INTO FUNCTION file(..., 'Parquet') of the export's own query, inside the server;
- `copy`: the HTTP stream of that query, copied to a file by this process and nothing else; and once more with
  the SHA-256 of the bytes, which every manifest has and which costs about as much as the copy;
- `export`: the worker's export of the window to file://, with its count, checks, sums and commit.

Then the peak memory of a worker process that exports a window, and one ten times as large.

    .venv/bin/python -m benchmarks.throughput [--rows 60000] [--rounds 5] [--plot docs/throughput.png]
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import matplotlib.pyplot as plt
import urllib3
from rich.console import Console
from rich.table import Table as RichTable

from langfuse_export import sql
from langfuse_export.tables import OBSERVATIONS
from langfuse_export.windows import Window
from langfuse_worker.blobstore import PART_BYTES
from langfuse_worker.clickhouse import Query, QueryComment
from tests.export.http.exporting import HOUR, Deployment
from tests.rows import PROJECT
from tests.servers.clickhouse import ClickHouseServer

GOAL_SPEED = 0.9
GOAL_CPU = 1.2
GOAL_MEMORY = 1.1
WORDS = 600  # 5 KB
BATCH_WORDS = 3_000_000
STEP_S = 7919  # a prime, so that few rows reach every second of a period, too

console = Console(width=120)


@dataclass
class Cost:
    """Wall and CPU seconds of this process, one entry a round."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def measure(self, action: Callable[[], object]) -> None:
        """Run once and add what it took."""
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        action()
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.wall_s.append(time.monotonic() - started)
        self.cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    @property
    def wall(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall_s)

    @property
    def cpu(self) -> float:
        """Median CPU seconds."""
        return statistics.median(self.cpu_s)


def fill(server: ClickHouseServer, rows: int, words: int = WORDS, period: Window = HOUR) -> None:
    """Insert observations of some 8 bytes of text a word, spread over a period, in parts of 25 MB or less."""
    vocabulary = (
        "splitByChar(' ', 'the model answers a question about an invoice with two items and a refund')"
    )
    pick = (
        f"arrayElement({vocabulary}, 1 + cityHash64(number, i) % 14) || toString(cityHash64(i, number) % 997)"
    )
    text = f"arrayStringConcat(arrayMap(i -> {pick}, range({words})), ' ')"
    seconds = (period.end_ms - period.start_ms) // 1000
    batch = max(1, BATCH_WORDS // words)
    for at in range(0, rows, batch):
        server.execute(
            "INSERT INTO observations (id, trace_id, project_id, type, start_time, name, input, output) "
            f"SELECT hex(sipHash128(number)), hex(number % 1000), '{PROJECT}', 'GENERATION', "
            f"fromUnixTimestamp64Milli({period.start_ms}) + number * {STEP_S} % {seconds}, "
            f"'llm', {text}, '{{\"ok\": true}}' FROM numbers({at}, {min(batch, rows - at)}) "
            "SETTINGS max_block_size = 1000"
        )


def export_query(deployment: Deployment) -> Query:
    """The query that an export of the window sends."""
    project = deployment.project
    return Query(
        project.encoding.sql(OBSERVATIONS),
        QueryComment("benchmark"),
        sql.parameters(OBSERVATIONS, PROJECT, HOUR),
        {**sql.FINAL_SETTINGS, **project.encoding.settings(project.row_group_rows)},
    )


def write_inside(deployment: Deployment, target: Path) -> None:
    """Have ClickHouse write the file."""
    with _replaced(target) as new:
        text = f"INSERT INTO FUNCTION file('{new}', 'Parquet') {export_query(deployment).sql}"
        _post(deployment, text, lambda response: response.read())


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A file that takes the target's place in the end, as an export's does.

    To overwrite the target would be cheaper: the kernel would use its pages again, instead of finding others.
    """
    new = target.with_suffix(".new")
    yield new
    new.replace(target)


def copy_stream(deployment: Deployment, target: Path, with_sum: bool = False) -> None:
    """Copy the bytes of the HTTP answer to a file."""
    digest = hashlib.sha256()

    def copy(response: urllib3.BaseHTTPResponse) -> None:
        with _replaced(target) as new, open(new, "wb") as file:
            for chunk in response.stream(1 << 20, decode_content=False):
                file.write(chunk)
                if with_sum:
                    digest.update(chunk)

    _post(deployment, f"{export_query(deployment).sql} FORMAT Parquet", copy)


def _post(deployment: Deployment, text: str, consume: Callable[[urllib3.BaseHTTPResponse], object]) -> None:
    """Send a variant of the export's query with the settings that the export sends."""
    server, query = deployment.server, export_query(deployment)
    parameters = {f"param_{name}": value for name, value in query.parameters.items()}
    fields = {**query.settings, **deployment.project.limits.settings(), **parameters}
    response = urllib3.request(
        "POST",
        f"{server.url}/?{urlencode(fields)}",
        body=text.encode(),
        headers={"X-ClickHouse-User": server.user, "X-ClickHouse-Key": server.password},
        preload_content=False,
        timeout=600,
    )
    if response.status != 200:
        raise RuntimeError(response.data.decode())
    consume(response)
    response.release_conn()


def peak_memory(server: ClickHouseServer, blobs: Path) -> int:
    """Peak memory, bytes, of a fresh worker process that exports what is in the window."""
    command = [sys.executable, "-m", "tests.export.http.peak_memory", PROJECT, str(blobs), str(PART_BYTES)]
    ended = subprocess.run(command, env=server.environment_of_a_worker, check=True, stdout=subprocess.PIPE)
    return int(ended.stdout.split()[-1])


@dataclass(frozen=True)
class Result:
    """What came out; ratios are of medians."""

    rows: int
    payload_gb: float
    object_mb: float
    clickhouse_s: float
    copy_s: float
    export_s: float
    copy_cpu_s_per_gb: float
    summed_copy_cpu_s_per_gb: float
    export_cpu_s_per_gb: float
    peak_mb: float
    peak_tenfold_mb: float

    @property
    def speed(self) -> float:
        """Speed of the export, ClickHouse's own being 1."""
        return self.clickhouse_s / self.export_s


def run(rows: int, rounds: int, directory: Path) -> Result:
    """Measure everything on a server of its own."""
    blobs = directory / "blobs"
    clickhouse, copy, summed, export = Cost(), Cost(), Cost(), Cost()
    with ClickHouseServer(directory / "server") as server, Deployment(server, blobs) as deployment:
        fill(server, rows)
        size = "SELECT sum(length(input) + length(output)) AS bytes FROM observations"
        payload = int(server.rows(size)[0]["bytes"]) / 1e9
        deployment.export(HOUR, [OBSERVATIONS])  # warms both sides up
        for _ in range(rounds):
            clickhouse.measure(lambda: write_inside(deployment, directory / "inside.parquet"))
            copy.measure(lambda: copy_stream(deployment, directory / "copy.parquet"))
            summed.measure(lambda: copy_stream(deployment, directory / "copy.parquet", with_sum=True))
            export.measure(lambda: deployment.export(HOUR, [OBSERVATIONS]))
        object_mb = sum(path.stat().st_size for path in blobs.rglob("*.parquet")) / 1e6
        peak = peak_memory(server, blobs)
        for extra in range(1, 10):
            copy_rows(server, extra)
        peak_tenfold = peak_memory(server, blobs)
    return Result(
        rows=rows,
        payload_gb=payload,
        object_mb=object_mb,
        clickhouse_s=clickhouse.wall,
        copy_s=copy.wall,
        export_s=export.wall,
        copy_cpu_s_per_gb=copy.cpu / payload,
        summed_copy_cpu_s_per_gb=summed.cpu / payload,
        export_cpu_s_per_gb=export.cpu / payload,
        peak_mb=peak / 1e6,
        peak_tenfold_mb=peak_tenfold / 1e6,
    )


def copy_rows(server: ClickHouseServer, copy: int) -> None:
    """Insert the first rows again under other ids."""
    server.execute(
        f"INSERT INTO observations SELECT * REPLACE (concat(id, '-{copy}') AS id) FROM observations "
        "WHERE length(id) = 32 SETTINGS max_block_size = 1000, max_threads = 1"
    )


def show(result: Result) -> None:
    """Print the table."""
    table = RichTable(
        title=f"{result.rows:,} rows: {result.payload_gb:.2f} GB, {result.object_mb:.0f} MB as Parquet"
    )
    for heading in ("", "compared with", "export", "ratio", "goal"):
        table.add_column(heading, justify="right" if heading in ("export", "ratio") else "left")
    table.add_row(
        "wall seconds",
        f"ClickHouse itself {result.clickhouse_s:.2f}",
        f"{result.export_s:.2f}",
        f"{result.speed:.2f}",
        f"speed at least {GOAL_SPEED}",
    )
    table.add_row(
        "worker CPU seconds per GB",
        f"bare copy {result.copy_cpu_s_per_gb:.2f}",
        f"{result.export_cpu_s_per_gb:.2f}",
        f"{result.export_cpu_s_per_gb / result.copy_cpu_s_per_gb:.2f}",
        f"at most {GOAL_CPU}",
    )
    table.add_row(
        "",
        f"copy with SHA-256 {result.summed_copy_cpu_s_per_gb:.2f}",
        f"{result.export_cpu_s_per_gb:.2f}",
        f"{result.export_cpu_s_per_gb / result.summed_copy_cpu_s_per_gb:.2f}",
    )
    table.add_row(
        "peak memory of the worker, MB",
        f"one window {result.peak_mb:.0f}",
        f"ten times the rows {result.peak_tenfold_mb:.0f}",
        f"{result.peak_tenfold_mb / result.peak_mb:.2f}",
        f"at most {GOAL_MEMORY}",
    )
    console.print(table)


def plot(result: Result, path: Path) -> None:
    """Draw the three comparisons."""
    figure, (speed, cpu, memory) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    grey, blue = "#9aa5b1", "#2f6fdb"
    speed.bar(["ClickHouse\nitself", "export"], [result.clickhouse_s, result.export_s], color=[grey, blue])
    speed.set_title(f"Seconds for {result.payload_gb:.1f} GB of payload")
    cpu.bar(
        ["bare copy", "copy and\nSHA-256", "export"],
        [result.copy_cpu_s_per_gb, result.summed_copy_cpu_s_per_gb, result.export_cpu_s_per_gb],
        color=[grey, grey, blue],
    )
    cpu.set_title("Worker CPU seconds per GB")
    memory.bar(["window", "10 x window"], [result.peak_mb, result.peak_tenfold_mb], color=[blue, blue])
    memory.set_title("Peak memory of the worker, MB")
    for axes in (speed, cpu, memory):
        axes.bar_label(axes.containers[0], fmt="%.3g")  # type: ignore[arg-type]
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rows", type=int, default=60_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--plot", type=Path)
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = run(options.rows, options.rounds, Path(directory))
    if options.json:
        print(json.dumps(vars(result)))
    else:
        show(result)
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
