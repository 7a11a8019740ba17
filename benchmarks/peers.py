"""This product beside others that export the same window of observations from the same ClickHouse to files.

They take turns, several times, each in a process of its own; medians are reported.

- `dlt`: Arrow batches of clickhouse-connect, dlt's filesystem destination, Parquet; once more with ZSTD
  instead of Snappy, which is its default, as it is of pandas and of exports;
- `pandas`: clickhouse-connect's DataFrame and its `to_parquet`;
- `Langfuse's query`: ORDER BY event_ts DESC LIMIT 1 BY, Langfuse's settings, this product's copy path;
- `export`: this product, with its count, checks, sums and manifest; once more with ZSTD, as files of
  Langfuse's query have it; and once with `transfer: server`, into an S3 server (moto) that has its share of
  the same cores.

An export is compared with a dlt of the same codec.

dlt and pandas send what a user would write: SELECT ... FINAL with a project and a time.

    .venv/bin/python -m pip install --constraint constraints.txt --editable '.[peers]'
    .venv/bin/python -m benchmarks.peers [--rows 200000] [--rounds 5] [--plot docs/peers.png]
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.contenders import by_server
from benchmarks.exported_content import Content, content, content_of_file
from benchmarks.medians import medians
from benchmarks.server_cost import server_cost
from benchmarks.versioned_rows import fill
from langfuse_export.formats import ParquetCodec
from langfuse_export.tables import OBSERVATIONS
from langfuse_worker.blobstore import PART_BYTES
from tests.export.http.exporting import HOUR
from tests.export.http.server_mode import writing_to_s3
from tests.rows import PROJECT
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.s3 import S3Server

DLT, DLT_WITH_ZSTD, PANDAS, LANGFUSE = "dlt", "dlt, ZSTD", "pandas", "Langfuse's query"
EXPORT, EXPORT_WITH_ZSTD, BY_SERVER = "export", "export, ZSTD", "export, server mode, moto"

# What is compared with whom, and the ratio at most.
GOALS = (
    ("time", DLT, "wall_s", 0.5),
    ("client CPU", DLT, "client_cpu_s", 0.1),
    ("client memory", DLT, "client_peak", 0.2),
    ("time", LANGFUSE, "wall_s", 0.6),
    ("ClickHouse memory", LANGFUSE, "clickhouse_peak", 0.25),
)

_SELECT = "SELECT " + ", ".join(
    f"{column.unmasked_sql} AS `{column.name}`" for column in OBSERVATIONS.columns
)
_TIME = f"t.start_time >= '{HOUR.start:%F %T}' AND t.start_time < '{HOUR.end:%F %T}'"
_WHERE = f"WHERE t.project_id = '{PROJECT}' AND {_TIME}"
USERS_QUERY = f"{_SELECT} FROM observations AS t FINAL {_WHERE}"
LAST = "ORDER BY t.event_ts DESC LIMIT 1 BY t.id, t.project_id, t.type"
LANGFUSE_QUERY = f"{_SELECT} FROM observations AS t {_WHERE} {LAST}"

console = Console(width=140)


@dataclass(frozen=True)
class Contender:
    """A program that exports the window and prints the most memory it had, bytes.

    Attributes:
        module: what is run.
        sql: what it reads on standard input.
        before, after: arguments around the directory that it exports to.
    """

    name: str
    module: str
    sql: str = ""
    before: Sequence[str] = ()
    after: Sequence[str] = ()


def contenders(s3: S3Server) -> list[Contender]:
    """Everything that is compared, in the order of its turns."""
    export = Contender(EXPORT, "tests.export.http.peak_memory", "", [PROJECT], [str(PART_BYTES)])
    return [
        Contender(DLT, "benchmarks.contenders.with_dlt", USERS_QUERY, after=[ParquetCodec.SNAPPY]),
        Contender(DLT_WITH_ZSTD, "benchmarks.contenders.with_dlt", USERS_QUERY, after=[ParquetCodec.ZSTD]),
        Contender(PANDAS, "benchmarks.contenders.with_pandas", USERS_QUERY),
        Contender(LANGFUSE, "benchmarks.contenders.with_langfuse_query", LANGFUSE_QUERY),
        export,
        replace(export, name=EXPORT_WITH_ZSTD, after=[*export.after, ParquetCodec.ZSTD]),
        Contender(BY_SERVER, by_server.__name__, before=[s3.url]),
    ]


@dataclass(frozen=True)
class Cost:
    """What one export took: seconds and bytes, of its process and of all its queries in ClickHouse.

    Attributes:
        client_start_cpu_s: the part of `client_cpu_s` that a process takes to start and to import.
    """

    wall_s: float
    client_cpu_s: float
    client_start_cpu_s: float
    client_peak: float
    clickhouse_cpu_s: float
    clickhouse_peak: float
    read_bytes: float


def run_once(contender: Contender, server: ClickHouseServer, target: Path) -> Cost:
    """Export into an empty directory."""
    for leftover in (target, target.with_name(f"{target.name}.pipelines")):
        shutil.rmtree(leftover, ignore_errors=True)
    target.mkdir()
    command = [sys.executable, "-m", contender.module, *contender.before, str(target), *contender.after]
    environment = server.environment_of_a_worker | {"RUNTIME__DLTHUB_TELEMETRY": "false"}
    environment["HOME"] = str(target.parent)
    [now] = server.rows("SELECT now64(6) AS time")
    cpu_s = [_cpu_of_children_s()]
    subprocess.run([sys.executable, "-c", f"import {contender.module}"], env=environment, check=True)
    cpu_s.append(_cpu_of_children_s())
    started = time.monotonic()
    ended = subprocess.run(
        command, env=environment, check=True, input=contender.sql.encode(), stdout=subprocess.PIPE
    )
    wall_s = time.monotonic() - started
    cpu_s.append(_cpu_of_children_s())
    since = f"query_start_time_microseconds >= '{now['time']}'"
    queries = server_cost(server, f"{since} AND log_comment != 'test'")
    return Cost(
        wall_s=wall_s,
        client_cpu_s=cpu_s[2] - cpu_s[1],
        client_start_cpu_s=cpu_s[1] - cpu_s[0],
        client_peak=int(ended.stdout.split()[-1]),
        clickhouse_cpu_s=queries.cpu_s,
        clickhouse_peak=queries.peak_bytes,
        read_bytes=queries.read_bytes,
    )


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Outcome:
    """The medians of a contender, what it has exported and into how many bytes."""

    cost: Cost
    content: Content
    file_bytes: int


@dataclass(frozen=True)
class Result:
    """All outcomes by contender, and what FINAL returns."""

    payload_bytes: int
    true: Content
    outcomes: Mapping[str, Outcome]

    def ratio(self, name: str, other: str, attribute: str) -> float:
        """A cost of one contender, that of another being 1."""
        return getattr(self.outcomes[name].cost, attribute) / getattr(self.outcomes[other].cost, attribute)


def run(rows: int, rounds: int, directory: Path) -> Result:
    """Measure everything on a server of its own."""
    with S3Server() as s3, writing_to_s3(directory / "server", s3.url) as server:
        compared = contenders(s3)
        costs: dict[str, list[Cost]] = {contender.name: [] for contender in compared}
        targets = {contender.name: directory / f"to-{number}" for number, contender in enumerate(compared)}
        fill(server, rows)
        for number in range(rounds + 1):
            for contender in compared:
                s3.create_bucket(by_server.BUCKET)
                cost = run_once(contender, server, targets[contender.name])
                console.print(
                    f"round {number} of {rounds}: {contender.name} {cost.wall_s:.1f} s", style="dim"
                )
                if number:  # the first one warms up
                    costs[contender.name].append(cost)
        download(s3, targets[BY_SERVER])
        [size] = server.rows(f"SELECT sum(length(input) + length(output)) AS bytes FROM ({USERS_QUERY})")
        outcomes = {
            name: Outcome(
                medians(costs[name]),
                content_of_file(server, target),
                sum(path.stat().st_size for path in target.rglob("*.parquet")),
            )
            for name, target in targets.items()
        }
        return Result(int(size["bytes"]), content(server, f"({USERS_QUERY})"), outcomes)


def download(s3: S3Server, directory: Path) -> None:
    """Fetch the file that ClickHouse has written, so that it can be compared with the others."""
    [key] = [key for key in s3.keys(by_server.BUCKET) if key.endswith(".parquet")]
    (directory / "observations.parquet").write_bytes(s3.read(by_server.BUCKET, key))


def show(result: Result) -> None:
    """Print the costs, and how they compare with the goals."""
    table = RichTable(
        title=f"{result.true.rows:,} observations with {result.payload_bytes / 1e9:.2f} GB of text"
    )
    headings = (
        "wall s",
        "client CPU s",
        "of it start",
        "client MB",
        "ClickHouse CPU s",
        "ClickHouse MB",
        "read MB",
        "file MB",
    )
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("rows")
    for name, outcome in result.outcomes.items():
        cost = outcome.cost
        numbers = [f"{cost.wall_s:.1f}", f"{cost.client_cpu_s:.2f}", f"{cost.client_start_cpu_s:.2f}"]
        numbers += [f"{cost.client_peak / 1e6:.0f}", f"{cost.clickhouse_cpu_s:.1f}"]
        bytes_ = (cost.clickhouse_peak, cost.read_bytes, outcome.file_bytes)
        numbers += [f"{value / 1e6:.0f}" for value in bytes_]
        table.add_row(name, *numbers, outcome.content.compared_with(result.true))
    console.print(table)
    goals = RichTable("", "against", "ratio", "goal")
    for label, other, attribute, goal in GOALS:
        for name in (EXPORT, EXPORT_WITH_ZSTD, BY_SERVER):
            peer = DLT_WITH_ZSTD if (name, other) == (EXPORT_WITH_ZSTD, DLT) else other
            goals.add_row(f"{label} of {name}", peer, f"{result.ratio(name, peer, attribute):.2f}", f"{goal}")
    console.print(goals)


def plot(result: Result, path: Path) -> None:
    """Draw the four costs."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", sharey=True)
    names = list(result.outcomes)[::-1]
    panels = (
        ("wall_s", 1, "Seconds"),
        ("client_cpu_s", 1, "Client CPU, s"),
        ("client_peak", 1e6, "Client peak memory, MB"),
        ("clickhouse_peak", 1e6, "ClickHouse peak memory, MB"),
    )
    for axis, (attribute, unit, title) in zip(axes, panels, strict=True):
        values = [getattr(result.outcomes[name].cost, attribute) / unit for name in names]
        bars = axis.barh(names, values, color=["#2f6fdb" if EXPORT in name else "#9aa5b1" for name in names])
        axis.bar_label(bars, fmt="{:,.3g}" if unit == 1 else "{:,.0f}", padding=3)
        axis.set_title(title)
        axis.margins(x=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--plot", type=Path)
    arguments.add_argument("--json", type=Path, help="keep the result in this file")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = run(options.rows, options.rounds, Path(directory))
    show(result)
    if options.json:
        options.json.write_text(json.dumps(asdict(result)))
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
