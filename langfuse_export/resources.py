"""What assets and schedules work with; tests and the command line pass their own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from langfuse_export.exporter import NoProgress, Progress
from langfuse_export.health.policy import HealthPolicy
from langfuse_export.listeners import Listeners
from langfuse_export.notify.notifier import Notifier
from langfuse_export.telemetry import Telemetry, build_telemetry
from langfuse_export.windows import Frequency
from langfuse_export.write_back import PostgresWriteBack
from langfuse_worker.clickhouse import ClickHouse, connect
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings


def utc_now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class LateOptions:
    """How windows are found that changed after their export.

    Attributes:
        interval_s: seconds between two looks; 0 switches them off.
        margin_s: by how much the clocks of those who write may differ, and how long their rows may take.
        audit_hours: hours in which every window is compared once; 0 switches that off.
    """

    interval_s: int = 3_600
    lookback_hours: int = 168
    margin_s: int = 600
    windows_per_tick: int = 200
    audit_hours: int = 24


@dataclass(frozen=True)
class ExportOptions:
    """How runs behave, from the settings.

    Attributes:
        lag: how long after its end a window may be exported at the earliest.
        scratch: directory for the rows of a day on their way into its windows.
        catchup_buffer_bytes: rows of a day that are held in memory meanwhile, bytes.
        run_lease_s: seconds after which a run that is not heard of counts as killed.
        health: how patient the deployment is with a project that fails.
        now: the clock of runs and sensors.
    """

    windows_per_run: int | None
    table_concurrency: int
    retry_delay_s: float
    lag: timedelta
    lookback_hours: int
    scratch: Path
    catchup_buffer_bytes: int
    run_lease_s: int
    late: LateOptions = LateOptions()
    health: HealthPolicy = field(default_factory=HealthPolicy)
    now: Callable[[], datetime] = utc_now

    @classmethod
    def from_settings(cls, settings: Settings) -> "ExportOptions":
        """The deployment's options."""
        return cls(
            windows_per_run=settings.export_windows_per_run,
            table_concurrency=settings.export_table_concurrency,
            retry_delay_s=settings.export_retry_delay_s,
            lag=timedelta(milliseconds=settings.export_lag_ms),
            lookback_hours=settings.export_lookback_hours,
            scratch=settings.home / "scratch",
            catchup_buffer_bytes=settings.export_catchup_buffer_bytes,
            run_lease_s=settings.export_run_lease_s,
            late=LateOptions(
                interval_s=settings.export_late_interval_s,
                lookback_hours=settings.export_late_lookback_hours,
                margin_s=settings.export_late_margin_s,
                windows_per_tick=settings.export_late_windows_per_tick,
                audit_hours=settings.export_late_audit_hours,
            ),
            health=HealthPolicy.from_settings(settings),
        )

    def windows_per_run_of(self, frequency: Frequency) -> int:
        """Windows of one run at most; by default those of three days: a process takes seconds to start."""
        return self.windows_per_run or max(24, timedelta(days=3) // frequency.length)


@dataclass(frozen=True)
class ExportResources:
    """The parts that talk to the world.

    Attributes:
        clickhouse: the one place that puts the limits on every query.
        telemetry: the metrics.
        progress: hears of bytes, objects and windows.
        listeners: hear of runs.
        postgres: Langfuse's, for prices of models; None where DATABASE_URL is not set.
        notifier: tells people.
    """

    clickhouse: ClickHouse
    telemetry: Telemetry
    progress: Progress = field(default_factory=NoProgress)
    listeners: Listeners = field(default_factory=Listeners)
    postgres: Database | None = None
    notifier: Notifier = field(default_factory=Notifier)

    @classmethod
    def from_settings(cls, settings: Settings, progress: Progress | None = None) -> "ExportResources":
        """Real parts, connected on first use."""
        return cls(
            connect(settings),
            build_telemetry(settings),
            progress or NoProgress(),
            listeners=_listeners(settings),
            postgres=Database(settings.database_url) if settings.database_url else None,
            notifier=Notifier.from_settings(settings),
        )

    def as_dagster(self) -> dict[str, object]:
        """By the names that assets and schedules ask for."""
        return {
            "clickhouse": dg.ResourceDefinition.hardcoded_resource(
                self.clickhouse, "ClickHouse; every query carries the export limits."
            ),
            "telemetry": dg.ResourceDefinition.hardcoded_resource(
                self.telemetry, "OpenTelemetry metrics, exported as the OTEL_* variables say."
            ),
            "progress": dg.ResourceDefinition.hardcoded_resource(
                self.progress, "Hears of bytes, objects and windows as they pass."
            ),
            "listeners": dg.ResourceDefinition.hardcoded_resource(
                self.listeners, "Hear of runs: their start, each exported window, their end."
            ),
            "postgres": dg.ResourceDefinition.hardcoded_resource(
                self.postgres, "Langfuse's Postgres, where prices of models are."
            ),
            "notifier": dg.ResourceDefinition.hardcoded_resource(
                self.notifier, "Tells people that exports fail, stop or work again."
            ),
        }


def _listeners(settings: Settings) -> Listeners:
    if settings.database_url is None:
        return Listeners()
    lag = timedelta(milliseconds=settings.export_lag_ms)
    return Listeners((PostgresWriteBack(Database(settings.database_url), lag),))
