"""Windows that need more than their queries may take."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from langfuse_export.errors import WindowError
from langfuse_export.exporter import WindowExporter
from langfuse_export.parts import PartSize
from langfuse_export.tables import TABLES
from tests.export.http.exporting import HOUR, Deployment
from tests.rows import PROJECT, observation
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault, Request
from tests.waiting import wait_for

OBSERVATIONS = TABLES["observations"]
KEY = "p1/observations/2026-06-01T13-00-00.parquet"

# 450 observations of 150 KB do not fit into this memory at once, a few do.
HEAVY_ROWS = 450
MEMORY = 90_000_000
TOO_MUCH_AT_ONCE = Fault("refuse", match="t.input", code=241)
# In the query of the second half's payload, and in no other.
SECOND_PART = "AND t.id >= unhex({part_low:String})"


def insert_heavy_observations(server: ClickHouseServer, hour: datetime = HOUR.start) -> None:
    """Insert the rows over the hour, as several ClickHouse parts."""
    for at in range(0, HEAVY_ROWS, HEAVY_ROWS // 3):
        server.execute(
            "INSERT INTO observations (id, project_id, type, start_time, event_ts, input) "
            f"SELECT lower(hex(cityHash64(number))), '{PROJECT}', 'SPAN', "
            f"toDateTime64({hour.timestamp():.0f}, 3) + number * 7, now64(3), randomPrintableASCII(150000) "
            f"FROM numbers({at}, {HEAVY_ROWS // 3})"
        )


def insert_observations(deployment: Deployment, count: int = 20) -> None:
    """Insert small ones, in two ClickHouse parts."""
    ids = [f"o{n:03d}" for n in range(count)]
    for half in (ids[: count // 2], ids[count // 2 :]):
        deployment.insert("observations", *[observation(id, input=f"of {id}") for id in half])


def fail_in_the_second_part(deployment: Deployment) -> WindowError:
    """Export with the first part staged and the second one refused; how that ends."""
    deployment.server.break_next(TOO_MUCH_AT_ONCE, Fault("refuse", match=SECOND_PART, code=210))
    with pytest.raises(WindowError) as failure:
        deployment.export(tables=[OBSERVATIONS])
    return failure.value


def exporter_within(deployment: Deployment, memory: int) -> WindowExporter:
    """An exporter whose queries have this much memory, bytes."""
    project = deployment.project
    limits = replace(project.limits, max_memory_usage=memory, max_threads=1)
    return deployment.exporter(replace(project, limits=limits))


def exporter_of_parts(deployment: Deployment, rows: int) -> WindowExporter:
    """An exporter whose last windows had to be read in parts of so many rows."""
    exporter = deployment.exporter()
    exporter.part_sizes = {table.name: PartSize(rows) for table in deployment.project.tables}
    return exporter


def payload_queries(deployment: Deployment, since: int = 0) -> list[Request]:
    """The queries that read payload, in their order, since the request of that number."""
    return [request for request in deployment.server.requests[since:] if "t.input" in request.sql]


def staged(deployment: Deployment) -> list[str]:
    """Parts and plans that wait in the destination, without what a killed worker was in the middle of."""
    return [name for name in deployment.files() if name.startswith("_incomplete/") and "#" not in name]


@contextmanager
def killed_worker(deployment: Deployment) -> Iterator[None]:
    """A process that exports the hour's observations to the deployment's directory; killed at the end."""
    command = [sys.executable, "-m", "tests.export.http.peak_memory", PROJECT, str(deployment.blobs), "0"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, env=deployment.server.environment_of_a_worker) as process:
        try:
            yield
        finally:
            process.kill()


def wait_for_query(deployment: Deployment, text: str, since: int, timeout_s: float = 60) -> None:
    """Return once a query with that text has arrived after that many others; raises TimeoutError."""
    wait_for(
        lambda: any(text in request.sql for request in payload_queries(deployment, since)),
        lambda: f"no query with {text!r} has arrived",
        timeout_s,
    )
