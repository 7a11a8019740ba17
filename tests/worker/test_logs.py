"""Log lines on stderr."""

import json
import os
import subprocess
import sys

import pytest
import structlog

from langfuse_worker.logs import MAX_ERROR_CHARS, configure_logging


def test_a_line_is_one_json_object_with_event_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    structlog.get_logger().info("blob_export_window_exported", projectId="p\n1", durationMs=5, name="é")
    structlog.get_logger().debug("not_this")

    out, err = capsys.readouterr()

    assert out == ""
    [line] = err.splitlines()
    assert "é" in line
    fields = json.loads(line)
    assert fields.pop("timestamp").endswith("Z")
    assert fields == {
        "event": "blob_export_window_exported",
        "level": "info",
        "projectId": "p\n1",
        "durationMs": 5,
        "name": "é",
    }


def test_an_error_of_any_length_makes_a_line_that_log_stores_take(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")

    structlog.get_logger().error("run_lease_not_renewed", error="the database refused: " + "x" * 1_000_000)

    fields = json.loads(capsys.readouterr().err)
    assert fields["error"].startswith("the database refused: x")
    assert len(fields["error"]) == MAX_ERROR_CHARS


_TWO_LINES = """
import structlog
from langfuse_worker.logs import configure_logging
configure_logging()
structlog.get_logger().info("consumers_started")
structlog.get_logger().info("consumers_stopped")
"""


def test_a_line_is_written_with_its_end_so_that_those_of_several_processes_do_not_mix() -> None:
    reading, writing = os.pipe2(os.O_DIRECT)  # a read ends where a write has ended
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}  # as images set it
    subprocess.run([sys.executable, "-c", _TWO_LINES], stderr=writing, env=unbuffered, check=True)
    written = [os.read(reading, 4096) for _ in range(2)]
    os.close(reading)
    os.close(writing)

    assert [json.loads(line)["event"] for line in written] == ["consumers_started", "consumers_stopped"]
    assert all(line.endswith(b"\n") for line in written)
