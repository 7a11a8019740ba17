"""What people wait for their dashboards while exports run, compared with an idle server.

Interactive queries, as a dashboard sends them, run one after the other on many light rows. Beside them run

- `idle`: nothing;
- `no limits`: two exports that may take what they want;
- `threads and priority`: two exports with the product's `max_threads` and `priority`, while people's queries
  have none, as on a ClickHouse where nobody has set anything up;
- `shipped profiles`: the same exports, people's queries with priority 1, and the workloads, of
  `deploy/clickhouse`.

The four take turns, several times. Exports are processes of the product's own export path, over and over.
People look at what they got before they ask for more: for `--pause-s` seconds after each three queries.

    .venv/bin/python -m benchmarks.isolation [--rounds 5] [--pause-s 2] [--plot docs/isolation.png]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.throughput import fill
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.tables import OBSERVATIONS
from langfuse_worker.clickhouse import QueryLimits, Scalar
from langfuse_worker.settings import Settings
from tests.export.http.exporting import HOUR, Deployment
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import SHIPPED_WORKLOADS, shipped_profile

GOAL_P95 = 1.2
EXPORTS = 2
ROUND_QUERIES = 6
WINDOW = "window"

DASHBOARD = (
    "SELECT toStartOfHour(start_time) AS hour, type, count(), quantiles(0.5, 0.95)(date_diff('ms', "
    "start_time, end_time)) FROM observations FINAL "
    "WHERE project_id = 'dashboard' GROUP BY hour, type ORDER BY hour",
    "SELECT name, uniq(trace_id), sum(usage_details['total']), sum(total_cost) FROM observations FINAL "
    "WHERE project_id = 'dashboard' AND start_time >= '2026-06-02' GROUP BY name ORDER BY name",
    "SELECT toDate(start_time) AS day, provided_model_name, count(), avg(length(output)) "
    "FROM observations FINAL WHERE project_id = 'dashboard' AND level = 'DEFAULT' "
    "GROUP BY day, provided_model_name ORDER BY day",
)

console = Console(width=120)


@dataclass(frozen=True)
class Mode:
    """What runs beside the dashboard, and with which settings of ClickHouse.

    Attributes:
        limits: of exports; None: there are none beside.
        export_settings, dashboard_settings: what the profiles of their users say.
    """

    name: str
    limits: QueryLimits | None = None
    export_settings: Mapping[str, str] = field(default_factory=dict)
    dashboard_settings: Mapping[str, str] = field(default_factory=dict)


def modes() -> list[Mode]:
    """The four, with the limits that a deployment has by default and the profiles as they ship."""
    limits = QueryLimits.from_settings(Settings())
    unlimited = replace(limits, max_threads=os.cpu_count() or 1, priority=0, max_memory_usage=0)
    return [
        Mode("idle", dashboard_settings=shipped_profile("interactive")),
        Mode("no limits", unlimited),
        Mode("threads and priority", limits),
        Mode("shipped profiles", limits, {"workload": "export"}, shipped_profile("interactive")),
    ]


def fill_dashboard(server: ClickHouseServer, rows: int) -> None:
    """Insert light observations of three days, as most of Langfuse's tables are."""
    server.execute(
        "INSERT INTO observations (id, trace_id, project_id, type, start_time, end_time, name, level, "
        "provided_model_name, usage_details, total_cost, output) SELECT hex(sipHash128(number)), "
        "hex(number % 50000), 'dashboard', ['GENERATION', 'SPAN', 'EVENT'][1 + number % 3], "
        "toDateTime64('2026-06-01 00:00:00', 3) + number % 259200 AS start, start + number % 90, "
        "concat('step-', toString(number % 40)), 'DEFAULT', concat('model-', toString(number % 7)), "
        "map('total', number % 4000), number % 100 / 1000, repeat(hex(number), 4) "
        f"FROM numbers({rows}) SETTINGS max_threads = 1"
    )


def export_forever(options: str) -> None:
    """What an export process does: exports the window again and again, and says when each was done."""
    arguments = json.loads(options)
    server = ClickHouseServer(Path(arguments["directory"]), port=arguments["port"])
    blobs = Path(arguments["directory"]) / arguments["name"]
    encoding = ProfiledEncoding(FileFormat.PARQUET, profile=arguments["settings"])
    with Deployment(server, blobs, encoding=encoding) as deployment:
        project = replace(deployment.project, limits=QueryLimits(**arguments["limits"]))
        exporter = deployment.exporter(project)
        while True:
            exporter.export(HOUR, [OBSERVATIONS])
            print(WINDOW, time.monotonic(), flush=True)


@dataclass(frozen=True)
class ProfiledEncoding(Encoding):
    """Adds settings that a server would take from the profile of a query's user; chDB has one user alone."""

    profile: Mapping[str, str] = field(default_factory=dict)

    def settings(self, row_group_rows: int, rows: int = 0, *, is_part: bool = False) -> Mapping[str, Scalar]:
        """Those of the format, and those of the profile."""
        return {**super().settings(row_group_rows, rows, is_part=is_part), **self.profile}


@contextmanager
def exports(mode: Mode, server: ClickHouseServer) -> Iterator[list[subprocess.Popen[str]]]:
    """The exports of a mode, from when each has exported a window until the end of the block."""
    running: list[subprocess.Popen[str]] = []
    for number in range(EXPORTS if mode.limits else 0):
        options = {
            "directory": str(server.directory),
            "port": server.port,
            "name": f"blobs-{number}",
            "settings": dict(mode.export_settings),
            "limits": vars(mode.limits),
        }
        command = [sys.executable, "-m", "benchmarks.isolation", "--export-forever", json.dumps(options)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    try:
        for process in running:
            if next(exported_at(process), None) is None:
                raise RuntimeError("an export process has ended; its error is above")
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
        server.wait_for_running_exports(0, timeout_s=60)


def exported_at(process: subprocess.Popen[str]) -> Iterator[float]:
    """When an export process had exported each window, seconds of the monotonic clock."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(WINDOW):
            yield float(line.split()[1])


def ask(server: ClickHouseServer, sql: str, settings: Mapping[str, str]) -> float:
    """Seconds that somebody waits for a query."""
    started = time.monotonic()
    server.execute(sql, settings)
    return time.monotonic() - started


@dataclass
class Measured:
    """What a mode has shown: the wait of each query relative to its median when idle, and exports' speed."""

    waits_s: dict[str, list[float]] = field(default_factory=lambda: {sql: [] for sql in DASHBOARD})
    windows: int = 0
    seconds: float = 0.0

    def ratios(self, idle: "Measured") -> list[float]:
        """Every wait, relative to the median wait for the same query on the idle server."""
        return [wait / median(idle.waits_s[sql]) for sql, waits in self.waits_s.items() for wait in waits]

    def percentile(self, percent: int, idle: "Measured") -> float:
        """A percentile of these ratios."""
        return quantiles(self.ratios(idle), n=100, method="inclusive")[percent - 1]


def run(rows: int, heavy_rows: int, rounds: int, pause_s: float, directory: Path) -> dict[str, Measured]:
    """Measure every mode, in turn."""
    compared = modes()
    measured = {mode.name: Measured() for mode in compared}
    with ClickHouseServer(directory / "server") as server:
        fill_dashboard(server, rows)
        fill(server, heavy_rows)
        for statement in SHIPPED_WORKLOADS:
            server.execute(statement)
        for sql in DASHBOARD:
            ask(server, sql, {})
        for round_number in range(rounds):
            for mode in compared:
                console.print(f"round {round_number + 1} of {rounds}: {mode.name}", style="dim")
                measure(mode, server, pause_s, measured[mode.name])
    return measured


def measure(mode: Mode, server: ClickHouseServer, pause_s: float, result: Measured) -> None:
    """One round of one mode."""
    with exports(mode, server) as running:
        started = time.monotonic()
        for _ in range(ROUND_QUERIES):
            for sql in DASHBOARD:
                result.waits_s[sql].append(ask(server, sql, mode.dashboard_settings))
            time.sleep(pause_s)
        result.seconds += time.monotonic() - started
        for process in running:
            process.kill()
            result.windows += sum(at > started for at in exported_at(process))


def show(measured: Mapping[str, Measured]) -> None:
    """Print the table."""
    idle = measured["idle"]
    table = RichTable(title="Wait for dashboard queries, the median on the idle server being 1")
    for heading in (
        "beside two exports with",
        "p50",
        "p95",
        "p99",
        "p95 to idle's",
        "goal",
        "windows a minute",
    ):
        table.add_column(heading, justify="left" if heading.startswith("beside") else "right")
    for name, result in measured.items():
        against = result.percentile(95, idle) / idle.percentile(95, idle)
        table.add_row(
            name,
            *(f"{result.percentile(percent, idle):.2f}" for percent in (50, 95, 99)),
            f"{against:.2f}",
            f"{GOAL_P95}" if name == "shipped profiles" else "",
            f"{result.windows * 60 / result.seconds:.1f}" if result.windows else "",
        )
    console.print(table)


def plot(measured: Mapping[str, Measured], path: Path) -> None:
    """Draw the distribution of waits in every mode."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    colors = {
        "idle": "#9aa5b1",
        "no limits": "#d64545",
        "threads and priority": "#e8a33d",
        "shipped profiles": "#2f6fdb",
    }
    for name, result in measured.items():
        axes.ecdf(result.ratios(measured["idle"]), label=name, color=colors[name])
    axes.axhline(0.95, color="#d0d5db", linewidth=0.8)
    axes.set_xlabel("wait, relative to the median of the same query on the idle server")
    axes.set_ylabel("share of queries")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rows", type=int, default=3_000_000, help="rows that dashboards aggregate")
    arguments.add_argument("--heavy-rows", type=int, default=60_000, help="rows of 5 KB that are exported")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--pause-s", type=float, default=2, help="pause after three queries, seconds")
    arguments.add_argument("--plot", type=Path)
    arguments.add_argument("--json", type=Path, help="keep every wait in this file")
    arguments.add_argument("--export-forever", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.export_forever:
        return export_forever(options.export_forever)
    with tempfile.TemporaryDirectory() as directory:
        measured = run(options.rows, options.heavy_rows, options.rounds, options.pause_s, Path(directory))
    show(measured)
    if options.plot:
        plot(measured, options.plot)
    if options.json:
        options.json.write_text(json.dumps({name: vars(result) for name, result in measured.items()}))
    return None


if __name__ == "__main__":
    main()
