"""Metrics and log lines of an export, on success and on failure."""

import json

import pytest

from langfuse_export.errors import WindowError
from langfuse_worker.blobstore import StoreAccessError
from langfuse_worker.logs import configure_logging
from tests.export.http.exporting import Deployment
from tests.rows import PROJECT, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.otlp import OtlpReceiver

FIELDS = {"table", "projectId", "windowStart", "windowEnd", "durationMs", "mode", "event"}


def test_an_export_sends_its_histograms_counters_and_outcome(
    deployment: Deployment, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    deployment.insert("traces", trace("t1"), trace("t2"))
    deployment.export()
    deployment.server.break_next(Fault("refuse", "t.string_value", code=202))
    with pytest.raises(WindowError):
        deployment.export()

    deployment.telemetry.flush()

    tables = otlp.named("langfuse.blob_export.table_duration_ms")
    counts = {(p.attributes["table"], p.attributes["outcome"]): p.count for p in tables}
    assert counts == {
        ("traces", "success"): 2,
        ("observations", "success"): 2,
        ("events", "success"): 2,
        ("scores", "success"): 1,
        ("scores", "failure"): 1,
    }
    jobs = {p.attributes["outcome"]: p.count for p in otlp.named("langfuse.blob_export.job_duration_ms")}
    assert jobs == {"success": 1, "failure": 1}
    rows = {p.attributes["table"]: p.value for p in otlp.named("langfuse.blob_export.rows")}
    assert rows["traces"] == 4
    [failure] = otlp.named("langfuse.blob_export.failures")
    assert failure.attributes == {"table": "scores", "mode": "catchup", "reason": "clickhouse_overloaded"}


@pytest.mark.defect("D13")
def test_d13_a_fault_before_the_first_query_is_recorded_like_any_other(
    deployment: Deployment,
    otlp: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    configure_logging("info")
    deployment.blobs.write_text("a file where the directory should be")

    with pytest.raises(StoreAccessError):
        deployment.export()

    deployment.telemetry.flush()
    [failure] = otlp.named("langfuse.blob_export.failures")
    assert failure.attributes == {"table": "*", "mode": "catchup", "reason": "destination_access"}
    [job] = otlp.named("langfuse.blob_export.job_duration_ms")
    assert job.attributes["outcome"] == "failure"
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert set(line) >= FIELDS
    assert (line["event"], line["reason"]) == ("blob_export_window_failed", "destination_access")


def test_every_outcome_is_a_line_with_the_same_fields(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    deployment.server.break_next(Fault("refuse", "t.string_value", code=202))

    with pytest.raises(WindowError):
        deployment.export()

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    by_event = {line["event"]: line for line in lines}
    assert set(by_event) == {
        "blob_export_table_exported",
        "blob_export_table_failed",
        "blob_export_window_failed",
    }
    for line in lines:
        assert set(line) >= FIELDS
        assert line["projectId"] == PROJECT
        assert (line["windowStart"], line["windowEnd"]) == (
            "2026-06-01T12:00:00.000Z",
            "2026-06-01T13:00:00.000Z",
        )
    assert by_event["blob_export_table_failed"]["table"] == "scores"
    assert by_event["blob_export_table_failed"]["reason"] == "clickhouse_overloaded"
    assert {line["level"] for line in lines} == {"info", "error"}
