"""How many events a second go from the queue into ClickHouse, against inserting the same events directly.

- `direct`: clickhouse-connect inserts a row for each event, in batches of the consumers' size: the limit;
- `one consumer`: jobs that wait in Redis are worked off: the event log is read, entities are merged, rows
  are written, jobs are removed;
- `two consumers`: the same events, worked off by two processes;
- `one beside ... stored`: one consumer, where sixty days have left many events, and the log knows of all.

They run in turn, several times; medians are reported. Then a consumer gets a trickle, and the time from
queueing a job to its visible rows is measured.

    .venv/bin/python -m benchmarks.ingestion [--traces 2500] [--rounds 3] [--stored 10000000] \
        [--plot docs/ingestion.png]
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import matplotlib.pyplot as plt
from redis import Redis
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import measured_consumer
from benchmarks.stored_events import store_events
from langfuse_ingest.enqueue import rq_queue
from langfuse_ingest.event_log import EntityKey, Group
from langfuse_ingest.events import Entity
from langfuse_ingest.merge import History, merge
from langfuse_ingest.runtime import build_runtime
from langfuse_ingest.tables import targets
from langfuse_worker.settings import Settings
from tests.ingest.sessions import START, sessions
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.redis import RedisServer

GOAL_OF_LIMIT = 0.3
GOAL_EVENTS_PER_SECOND = 5_000
EVENTS_IN_A_JOB = 100
PROJECT = "benchmark"
_IDS = ("id", "traceId", "parentObservationId")

console = Console(width=120)


@dataclass
class Rounds:
    """Wall and CPU seconds, one entry a round."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def add(self, wall_s: float, cpu_s: float) -> None:
        """Note a round."""
        self.wall_s.append(wall_s)
        self.cpu_s.append(cpu_s)

    def rate(self, events: int) -> float:
        """Events a second, by the median round."""
        return events / statistics.median(self.wall_s)

    def cpu_us(self, events: int) -> float:
        """Microseconds of CPU an event, by the median round."""
        return statistics.median(self.cpu_s) / events * 1e6


class Bench:
    """Servers, events, and the things that are measured."""

    def __init__(self, stack: ExitStack, traces: int) -> None:
        """Start the servers."""
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.clickhouse = stack.enter_context(ClickHouseServer(directory / "clickhouse"))
        self.redis = stack.enter_context(RedisServer(directory / "redis"))
        variables: dict[str, Any] = {
            **self.clickhouse.environment_of_a_worker,
            **self.redis.environment_of_a_worker,
            "LANGFUSE_HOME": str(directory / "home"),
            "LANGFUSE_MIGRATION_V4_WRITE_MODE": "legacy",
        }
        self.environment: dict[str, str] = {**os.environ, **variables}
        self.settings = Settings(**variables)
        self.events = [_with_random_ids(event) for event in sessions(traces)]

    def empty(self) -> None:
        """Remove every row and every job."""
        self.clickhouse.empty()
        Redis(port=self.redis.port or 0).flushall()

    def enqueue(self, events: list[dict[str, Any]]) -> None:
        """Accept events in batches of EVENTS_IN_A_JOB."""
        producer = build_runtime(self.settings).producer
        for start in range(0, len(events), EVENTS_IN_A_JOB):
            receipt = producer.accept(PROJECT, events[start : start + EVENTS_IN_A_JOB])
            assert not receipt.rejected, receipt.rejected

    def direct(self, rounds: Rounds) -> None:
        """Insert a row for each event."""
        self.empty()
        rows = _rows_of_events(self.events)
        client = clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.clickhouse.port,
            username=self.clickhouse.user,
            password=self.clickhouse.password,
            compress=False,
        )
        before, started = time.process_time(), time.monotonic()
        size = self.settings.ingestion_batch_size
        for table, (names, values) in rows.items():
            for start in range(0, len(values), size):
                client.insert(table, values[start : start + size], column_names=names)
        rounds.add(time.monotonic() - started, time.process_time() - before)

    def consume(self, rounds: Rounds, consumers: int, stored: int = 0) -> None:
        """Work the same events off that wait in the queue, beside so many observations."""
        self.empty()
        if stored:
            store_events(self.clickhouse, PROJECT, START, stored)
        self.enqueue(self.events)
        reports = self._run(consumers, lambda: None, idle_s=0)
        rounds.add(max(r["wall"] for r in reports), sum(r["cpu"] for r in reports))
        expected = len({e["body"]["id"] for e in self.events if e["type"].startswith(("span", "generation"))})
        [found] = self.clickhouse.rows("SELECT count() AS n FROM observations FINAL")
        assert int(found["n"]) == expected + stored, (found, expected)

    def latencies(self, seconds: float) -> list[float]:
        """Seconds from queueing to visible rows, ten small jobs a second."""
        self.empty()

        def feed() -> None:
            deadline = time.monotonic() + seconds
            position = 0
            while time.monotonic() < deadline:
                self.enqueue(self.events[position : position + 16])
                position = (position + 16) % (len(self.events) - 16)
                time.sleep(0.1)

        return [age for report in self._run(1, feed, idle_s=3) for age in report["ages"]]

    def _run(self, consumers: int, meanwhile: Callable[[], None], idle_s: int) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", measured_consumer.__name__, str(self.redis.port), str(idle_s)]
        processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment, text=True
            )
            for _ in range(consumers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        meanwhile()
        reports = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
        assert rq_queue("ingestion-queue", self.redis.client).count == 0
        return reports


def _with_random_ids(event: dict[str, Any]) -> dict[str, Any]:
    """The event with ids that lie among those that are stored, as SDKs' do."""
    body = event["body"]
    ids = {name: hashlib.md5(body[name].encode()).hexdigest() for name in _IDS if body.get(name)}
    return {**event, "body": {**body, **ids}}


def _rows_of_events(events: list[dict[str, Any]]) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """A whole row for each event, as the driver takes it: column names and values by table."""
    kinds = {"trace-create": Entity.TRACE, "score-create": Entity.SCORE}
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, event in enumerate(events):
        entity = kinds.get(event["type"], Entity.OBSERVATION)
        group = Group(entity, f"{event['body']['id']}-{number}", [event])
        row = merge(History(EntityKey(PROJECT, entity, group.id), event["timestamp"], groups=[("", group)]))
        [target] = targets(entity, "legacy")
        row = target.row(row)
        assert row is not None
        row["event_ts"] = event["timestamp"]
        rows.setdefault(target.table, []).append({name: _value(name, v) for name, v in row.items()})
    result: dict[str, tuple[list[str], list[list[Any]]]] = {}
    defaults = {"metadata": {}, "tags": [], "level": "DEFAULT", "public": False, "name": ""}
    for table, found in rows.items():
        names = sorted({name for row in found for name in row})
        values = [
            [row[name] if row.get(name) is not None else _missing(name, defaults) for name in names]
            for row in found
        ]
        result[table] = names, values
    return result


def _missing(name: str, defaults: dict[str, Any]) -> Any:
    return {} if name.endswith("_details") else defaults.get(name)


def _value(name: str, value: Any) -> Any:
    is_time = name in ("timestamp", "start_time", "end_time", "created_at", "event_ts")
    return datetime.fromisoformat(value) if is_time and value else value


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(bench: Bench, rounds: dict[str, Rounds], ages: list[float]) -> RichTable:
    """The table of results."""
    events = len(bench.events)
    limit = rounds["direct"].rate(events)
    table = RichTable("", "events/s", "of the limit", "CPU us/event", "goal", box=None)
    for name, round_ in rounds.items():
        rate = round_.rate(events)
        goal = f"{GOAL_OF_LIMIT} and {GOAL_EVENTS_PER_SECOND:,}/s" if name == "one consumer" else ""
        table.add_row(name, f"{rate:,.0f}", f"{rate / limit:.2f}", f"{round_.cpu_us(events):.0f}", goal)
    p50, p99 = _percentile(ages, 0.5), _percentile(ages, 0.99)
    table.add_row("from queue to row", f"p50 {p50 * 1000:.0f} ms", f"p99 {p99 * 1000:.0f} ms", "", "")
    return table


def plot(path: Path, bench: Bench, rounds: dict[str, Rounds]) -> None:
    """Bars of events a second."""
    rates = [round_.rate(len(bench.events)) for round_ in rounds.values()]
    figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
    axes.barh(list(rounds), rates, color=["#b0b8c4", *["#3b6fb6"] * (len(rates) - 1)])
    axes.axvline(GOAL_EVENTS_PER_SECOND, color="#c0392b", linestyle="--", linewidth=1, label="goal")
    axes.set_xlabel("events a second")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--traces", type=int, default=2_500, help="eight events each")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--stored", type=int, default=0, help="observations stored before")
    arguments.add_argument("--seconds", type=float, default=15, help="length of the trickle")
    arguments.add_argument("--plot", type=Path)
    options = arguments.parse_args()
    rounds = {"direct": Rounds(), "one consumer": Rounds(), "two consumers": Rounds()}
    beside = f"one beside {options.stored:,} stored"
    rounds |= {beside: Rounds()} if options.stored else {}
    with ExitStack() as stack:
        bench = Bench(stack, options.traces)
        for number in range(options.rounds):
            bench.direct(rounds["direct"])
            bench.consume(rounds["one consumer"], 1)
            bench.consume(rounds["two consumers"], 2)
            if options.stored:
                bench.consume(rounds[beside], 1, options.stored)
            console.print(f"round {number + 1} of {options.rounds} done", style="dim")
        ages = bench.latencies(options.seconds)
        size = bench.settings.ingestion_batch_size
        console.print(f"{len(bench.events):,} events, {EVENTS_IN_A_JOB} in a job, batches of {size:,}")
        console.print(report(bench, rounds, ages))
        if options.plot:
            plot(options.plot, bench, rounds)


if __name__ == "__main__":
    main()
