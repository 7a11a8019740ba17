"""Log lines on stderr."""

import json

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
