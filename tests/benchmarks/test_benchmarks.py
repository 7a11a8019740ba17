"""Benchmarks that need seconds still measure what they say, on as little as they take."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("catch_up --case 0 --rounds 1", ["a query a window"]),
        (
            "ingestion --traces 20 --rounds 1 --seconds 1 --stored 1000",
            ["direct", "one consumer", "one beside 1,000 stored", "from queue to row"],
        ),
        ("throughput --rows 1000 --rounds 1", ["wall seconds", "worker CPU", "peak memory"]),
    ],
    ids=["catch_up", "ingestion", "throughput"],
)
def test_a_benchmark_prints_its_table(command: str, lines: list[str]) -> None:
    module, *arguments = command.split()
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments], cwd=_ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    rows = [line.strip(" │") for line in ended.stdout.splitlines()]
    for line in lines:
        assert any(row.startswith(line) and any(map(str.isdigit, row)) for row in rows), ended.stdout
