"""Instruments of exports, through the product's telemetry."""

from dataclasses import asdict, dataclass

import structlog
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider

from langfuse_worker.settings import Settings
from langfuse_worker.telemetry import FLUSH_TIMEOUT_MS, build_provider

log = structlog.get_logger()

# Each halving doubles the parts of a window.
SPLIT_BUCKETS = [2, 4, 8, 16, 32, 64, 128, 256]

# From what any query needs to the largest limit that somebody may set.
MEMORY_BUCKETS_BYTES = [2**power for power in range(22, 36)]


@dataclass(frozen=True)
class TableAttributes:
    """Attributes of one table's export. Few values each, so that series stay few."""

    table: str
    mode: str
    format: str
    outcome: str


class Telemetry:
    """The instruments. Safe to use whether or not anything is exported."""

    def __init__(self, provider: MeterProvider) -> None:
        self._provider = provider
        meter = provider.get_meter("langfuse.blob_export")
        self._lags: dict[tuple[str, str], float] = {}
        self._windows_behind: dict[tuple[str, str], float] = {}
        self._late_windows: dict[tuple[str, str], float] = {}
        self._states: dict[str, str] = {}
        self._table = meter.create_histogram("langfuse.blob_export.table_duration_ms", "ms")
        self._job = meter.create_histogram("langfuse.blob_export.job_duration_ms", "ms")
        self._rows = meter.create_counter("langfuse.blob_export.rows", "{row}")
        self._bytes = meter.create_counter("langfuse.blob_export.bytes", "By")
        self._splits = meter.create_histogram(
            "langfuse.blob_export.split_count", "{part}", explicit_bucket_boundaries_advisory=SPLIT_BUCKETS
        )
        self._read_rows = meter.create_counter("langfuse.blob_export.query_read_rows", "{row}")
        self._read_bytes = meter.create_counter("langfuse.blob_export.query_read_bytes", "By")
        self._cpu = meter.create_counter("langfuse.blob_export.query_cpu_seconds", "s")
        self._memory = meter.create_histogram(
            "langfuse.blob_export.query_peak_memory_bytes",
            "By",
            explicit_bucket_boundaries_advisory=MEMORY_BUCKETS_BYTES,
        )
        self._failures = meter.create_counter("langfuse.blob_export.failures", "{failure}")
        self._register_gauge(meter, "langfuse.blob_export.lag_seconds", "s", self._lags)
        self._register_gauge(meter, "langfuse.blob_export.windows_behind", "{window}", self._windows_behind)
        self._register_gauge(meter, "langfuse.blob_export.late_windows", "{window}", self._late_windows)
        self._register_states(meter)

    def table_exported(self, attributes: TableAttributes, duration_ms: float, rows: int, size: int) -> None:
        """Record one table of one window.

        Args:
            attributes: table, mode, format and outcome.
            duration_ms: wall time, ms.
            rows: rows in the object.
            size: bytes of the object.
        """
        self._table.record(duration_ms, asdict(attributes))
        labels = {"table": attributes.table, "mode": attributes.mode}
        self._rows.add(rows, labels)
        self._bytes.add(size, labels)

    def window_split(self, table: str, reason: str, parts: int) -> None:
        """Record that a window of a table was too heavy, why, and in how many parts it is read now."""
        self._splits.record(parts, {"table": table, "reason": reason})

    def queries_cost(
        self, table: str, mode: str, *, read_rows: int, read_bytes: int, peak_memory: int, cpu_s: float
    ) -> None:
        """Record what the queries of one table in one run cost ClickHouse together.

        Args:
            table: the table.
            mode: of the run.
            read_rows: rows that ClickHouse read.
            read_bytes: bytes that it read, uncompressed.
            peak_memory: of the hungriest query, bytes.
            cpu_s: CPU seconds.
        """
        labels = {"table": table, "mode": mode}
        self._read_rows.add(read_rows, labels)
        self._read_bytes.add(read_bytes, labels)
        self._cpu.add(cpu_s, labels)
        self._memory.record(peak_memory, labels)

    def table_failed(self, attributes: TableAttributes, duration_ms: float, reason: str) -> None:
        """Record a failed table; the reason comes from a small fixed set."""
        self._table.record(duration_ms, asdict(attributes))
        self._failures.add(1, {"table": attributes.table, "mode": attributes.mode, "reason": reason})

    def window_failed(self, mode: str, reason: str) -> None:
        """Record a window that failed as a whole, such as before its first query."""
        self._failures.add(1, {"table": "*", "mode": mode, "reason": reason})

    def job_finished(self, mode: str, outcome: str, duration_ms: float) -> None:
        """Record one window of a project with all its tables, manifest included; wall time in ms."""
        self._job.record(duration_ms, {"mode": mode, "outcome": outcome})

    def lag(self, project: str, table: str, seconds: float) -> None:
        """Set the gauge: seconds from the end of the newest committed window to now."""
        self._lags[project, table] = seconds

    def windows_behind(self, project: str, table: str, windows: int) -> None:
        """Set the gauge: windows that are due and after the newest committed one.

        Those that the last tick of a schedule asked for count as one.
        """
        self._windows_behind[project, table] = windows

    def late_windows(self, project: str, table: str, windows: int) -> None:
        """Set the gauge: windows that seem to have changed after their export and wait for a later tick."""
        self._late_windows[project, table] = windows

    def project_state(self, project: str, state: str) -> None:
        """Set the gauge: 1 for the state that the project is in."""
        self._states[project] = state

    def flush(self) -> None:
        """Push what has been recorded, before the process ends; waits 5 s at most."""
        if not self._provider.force_flush(FLUSH_TIMEOUT_MS):
            log.warning("metrics_flush_incomplete", timeoutMs=FLUSH_TIMEOUT_MS)

    def shutdown(self) -> None:
        """Flush and stop; nothing is recorded afterwards."""
        self._provider.shutdown(FLUSH_TIMEOUT_MS)

    def _register_states(self, meter: Meter) -> None:
        def observe(_: CallbackOptions) -> list[Observation]:
            return [Observation(1, {"project": p, "state": s}) for p, s in list(self._states.items())]

        meter.create_observable_gauge("langfuse.blob_export.project_state", [observe])

    def _register_gauge(
        self, meter: Meter, name: str, unit: str, values: dict[tuple[str, str], float]
    ) -> None:
        def observe(_: CallbackOptions) -> list[Observation]:
            return [Observation(v, {"project": p, "table": t}) for (p, t), v in list(values.items())]

        meter.create_observable_gauge(name, [observe], unit)


def build_telemetry(settings: Settings) -> Telemetry:
    """Instruments that export where the OTEL_* variables say."""
    return Telemetry(build_provider(settings))
