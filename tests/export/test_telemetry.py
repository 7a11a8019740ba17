"""Metrics as they arrive at a collector."""

import socket
import threading

import pytest

from langfuse_export.telemetry import TableAttributes, build_telemetry
from langfuse_worker.settings import Settings
from langfuse_worker.telemetry import DURATION_BUCKETS_MS
from tests.servers.otlp import OtlpReceiver

EXPORTED = TableAttributes(table="traces", mode="catchup", format="parquet", outcome="success")


@pytest.fixture
def collected(otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> OtlpReceiver:
    """A receiver that the standard variable names."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    return otlp


def test_histograms_arrive_with_their_attributes_and_buckets(collected: OtlpReceiver) -> None:
    telemetry = build_telemetry(Settings())
    telemetry.table_exported(EXPORTED, 1234.5, rows=10, size=2048)
    telemetry.job_finished("catchup", "success", 2000)

    telemetry.flush()

    [table] = collected.named("langfuse.blob_export.table_duration_ms")
    assert table.attributes == {
        "table": "traces",
        "mode": "catchup",
        "format": "parquet",
        "outcome": "success",
    }
    assert (table.kind, table.count, table.value, table.is_delta) == ("histogram", 1, 1234.5, True)
    assert list(table.bounds) == DURATION_BUCKETS_MS
    [job] = collected.named("langfuse.blob_export.job_duration_ms")
    assert (job.attributes, job.value) == ({"mode": "catchup", "outcome": "success"}, 2000)
    telemetry.shutdown()


def test_counters_and_the_lag_arrive(collected: OtlpReceiver) -> None:
    telemetry = build_telemetry(Settings())
    telemetry.table_exported(EXPORTED, 1, rows=10, size=2048)
    telemetry.table_exported(EXPORTED, 1, rows=5, size=1000)
    telemetry.table_failed(EXPORTED, 1, "clickhouse_memory")
    telemetry.lag("p1", "traces", 1800.5)
    telemetry.windows_behind("p1", "traces", 3)

    telemetry.flush()

    assert [p.value for p in collected.named("langfuse.blob_export.rows")] == [15]
    assert [p.value for p in collected.named("langfuse.blob_export.bytes")] == [3048]
    [failure] = collected.named("langfuse.blob_export.failures")
    assert failure.attributes["reason"] == "clickhouse_memory"
    [lag] = collected.named("langfuse.blob_export.lag_seconds")
    assert (lag.kind, lag.value, lag.attributes) == ("gauge", 1800.5, {"project": "p1", "table": "traces"})
    [behind] = collected.named("langfuse.blob_export.windows_behind")
    assert (behind.kind, behind.value, behind.attributes) == ("gauge", 3, lag.attributes)
    telemetry.shutdown()


def test_two_flushes_add_up_instead_of_counting_twice(collected: OtlpReceiver) -> None:
    telemetry = build_telemetry(Settings())
    for rows in (10, 5):
        telemetry.table_exported(EXPORTED, 1, rows=rows, size=1)
        telemetry.flush()
    assert [point.value for point in collected.named("langfuse.blob_export.rows")] == [10, 5]
    telemetry.shutdown()


def test_a_dead_collector_holds_nothing_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        telemetry = build_telemetry(Settings())
        telemetry.job_finished("steady", "success", 1)
        flush = threading.Thread(target=telemetry.flush, daemon=True)
        flush.start()
        flush.join(60)
        assert not flush.is_alive()


def test_nothing_is_sent_unless_asked_for(otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    telemetry = build_telemetry(Settings())
    telemetry.job_finished("steady", "success", 1)
    telemetry.flush()
    assert otlp.points == []


def test_the_console_exporter_prints_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    telemetry = build_telemetry(Settings())
    telemetry.job_finished("steady", "success", 7)
    telemetry.flush()
    assert "langfuse.blob_export.job_duration_ms" in capsys.readouterr().err
    telemetry.shutdown()
