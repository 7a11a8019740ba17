"""Log lines on stderr."""

import json

import pytest
import structlog

from langfuse_worker.logs import configure_logging


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
