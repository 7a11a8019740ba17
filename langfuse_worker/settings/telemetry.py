"""Where metrics and logs go."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class TelemetrySettings(BaseSettings):
    """Where metrics and logs go."""

    otel_metrics_exporter: Literal["otlp", "console", "none"] | None = Field(
        default=None,
        validation_alias="OTEL_METRICS_EXPORTER",
        description="otlp, console or none. Unset: otlp when an OTLP endpoint is set, else none.",
    )
    otel_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTLP/HTTP endpoint; the SDK reads the other OTEL_* variables itself.",
    )
    otel_metrics_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        description="OTLP/HTTP endpoint for metrics alone.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        validation_alias="LANGFUSE_LOG_LEVEL",
        description="Least level that is logged.",
    )
