"""The worker's memory does not grow with the window."""

import subprocess
import sys
from pathlib import Path

from tests.rows import PROJECT
from tests.servers.clickhouse import ClickHouseServer

PART_BYTES = 5 << 20
ROWS = 8_000  # of 5 kB that do not compress: 40 MB


def test_a_window_ten_times_larger_needs_at_most_a_tenth_more_memory(
    clickhouse: ClickHouseServer, tmp_path: Path
) -> None:
    _insert(clickhouse, 0, ROWS)
    peak = _peak_memory(clickhouse, tmp_path / "one")
    for part in range(1, 10):
        _insert(clickhouse, part * ROWS, ROWS)

    tenfold = _peak_memory(clickhouse, tmp_path / "ten")

    sizes = [sum(p.stat().st_size for p in (tmp_path / name).rglob("*.parquet")) for name in ("one", "ten")]
    assert sizes[1] > 9.5 * sizes[0] > 300e6
    assert tenfold <= 1.1 * peak


def _insert(server: ClickHouseServer, first: int, count: int) -> None:
    server.execute(
        "INSERT INTO observations (id, project_id, type, start_time, input) "
        f"SELECT toString(number), '{PROJECT}', 'SPAN', '2026-06-01 12:30:00', randomPrintableASCII(5000) "
        f"FROM numbers({first}, {count})"
    )


def _peak_memory(server: ClickHouseServer, blobs: Path) -> int:
    command = [sys.executable, "-m", "tests.export.http.peak_memory", PROJECT, str(blobs), str(PART_BYTES)]
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        command, cwd=root, env=server.environment_of_a_worker, check=True, stdout=subprocess.PIPE
    )
    return int(ended.stdout.split()[-1])
