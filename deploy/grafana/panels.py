"""What the dashboards show. Names are the collector's for Prometheus; build.py writes the JSON."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: its heading.
        queries: PromQL by legend; an empty legend names the series by its labels.
        description: what a reader should conclude from it.
        kind: a Grafana panel type: timeseries, stat, bargauge or table.
        unit: a Grafana unit.
        width: of 24 columns.
        height: in rows of about 30 pixels.
        stacked: whether the series add up.
        thresholds: from which value on the panel has which colour.
    """

    title: str
    queries: dict[str, str]
    description: str = ""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    height: int = 8
    stacked: bool = False
    thresholds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dashboard:
    """One dashboard.

    Attributes:
        name: its file, and its address in Grafana.
        variables: the query that lists the values of each variable, by name.
        span: the time it shows, such as 24h.
    """

    name: str
    title: str
    description: str
    panels: list[Panel]
    variables: dict[str, str] = field(default_factory=dict)
    span: str = "24h"


WINDOWS = "langfuse_blob_export_job_duration_ms_milliseconds"
TABLES = "langfuse_blob_export_table_duration_ms_milliseconds"
BATCHES = "langfuse_queue_processing_duration_ms_milliseconds"
WAITS = "langfuse_queue_wait_duration_ms_milliseconds"
QUERIES = "langfuse_blob_export_query"
COSTS = "15m"  # what queries cost is read every five minutes
REFUSALS = 'reason=~"clickhouse_overloaded|clickhouse_memory|clickhouse_timeout"'


def quantiles(
    histogram: str, by: str, matchers: str = "", window: str = "$__rate_interval"
) -> dict[str, str]:
    """p50 and p95 of a histogram for each value of a label."""
    rate = f"sum by (le, {by}) (rate({histogram}_bucket{{{matchers}}}[{window}]))"
    return {f"p{q} {{{{{by}}}}}": f"histogram_quantile(0.{q}, {rate})" for q in (50, 95)}


def stat(title: str, query: str, unit: str = "short", thresholds: dict[str, float] | None = None) -> Panel:
    """One number, a quarter of the page wide."""
    return Panel(title, {"": query}, kind="stat", unit=unit, width=6, height=4, thresholds=thresholds or {})


HEALTH = Dashboard(
    "export-health",
    "Export health",
    "Whether windows are exported, how fast, and why not.",
    [
        stat("Windows exported", f'sum(increase({WINDOWS}_count{{outcome="success"}}[$__range]))'),
        stat(
            "Windows failed",
            f'sum(increase({WINDOWS}_count{{outcome="failure"}}[$__range])) or vector(0)',
            thresholds={"red": 1},
        ),
        stat("Rows", "sum(increase(langfuse_blob_export_rows_total[$__range]))"),
        stat("Bytes", "sum(increase(langfuse_blob_export_bytes_total[$__range]))", unit="bytes"),
        Panel(
            "Windows by mode and outcome",
            {"{{mode}} {{outcome}}": f"sum by (mode, outcome) (increase({WINDOWS}_count[$__rate_interval]))"},
            "steady is what schedules asked for, catchup everything else.",
            stacked=True,
        ),
        Panel(
            "Failures by reason",
            {
                "{{table}} {{reason}}": "sum by (table, reason) "
                "(increase(langfuse_blob_export_failures_total[$__rate_interval]))"
            },
            "The reasons are in docs/operations.md. Table * is a window that failed as a whole.",
            stacked=True,
        ),
        Panel(
            "Windows that were too heavy",
            {
                "{{table}} {{reason}}": "sum by (table, reason) "
                "(increase(langfuse_blob_export_split_count_count[$__rate_interval]))"
            },
            "How often a window was halved because ClickHouse lacked memory or time for it.",
            stacked=True,
        ),
        Panel("Duration of a window", quantiles(WINDOWS, "mode"), "With all its tables.", unit="ms"),
        Panel("Duration of a table", quantiles(TABLES, "table", 'outcome="success"'), unit="ms"),
        Panel(
            "Rows a second",
            {"{{table}}": "sum by (table) (rate(langfuse_blob_export_rows_total[$__rate_interval]))"},
            unit="rowsps",
            stacked=True,
        ),
        Panel(
            "Bytes a second",
            {"{{table}}": "sum by (table) (rate(langfuse_blob_export_bytes_total[$__rate_interval]))"},
            unit="Bps",
            stacked=True,
        ),
        Panel(
            "Tables by format",
            {"{{format}}": f"sum by (format) (increase({TABLES}_count[$__rate_interval]))"},
            stacked=True,
        ),
        Panel(
            "Share of table exports that fail",
            {
                "{{table}}": f'sum by (table) (rate({TABLES}_count{{outcome="failure"}}[$__rate_interval]))'
                f" / sum by (table) (rate({TABLES}_count[$__rate_interval]))"
            },
            unit="percentunit",
        ),
    ],
)

SELECTED = 'project=~"$project"'
IN_TROUBLE = f'{SELECTED},state!="healthy"'
LAG = Dashboard(
    "export-lag",
    "Export lag",
    "How far behind each project is, as of the last tick of its schedule.",
    [
        stat(
            "Most windows behind",
            f"max(langfuse_blob_export_windows_behind{{{SELECTED}}})",
            thresholds={"orange": 2, "red": 3},
        ),
        stat("Longest lag", f"max(langfuse_blob_export_lag_seconds{{{SELECTED}}})", unit="s"),
        stat("Projects", f"count(count by (project) (langfuse_blob_export_lag_seconds{{{SELECTED}}}))"),
        stat(
            "Tables behind",
            f"count(langfuse_blob_export_windows_behind{{{SELECTED}}} >= 3) or vector(0)",
            thresholds={"red": 1},
        ),
        Panel(
            "Windows behind",
            {"{{project}}": f"max by (project) (langfuse_blob_export_windows_behind{{{SELECTED}}})"},
            "Due windows after the newest committed one. 1 is normal: what the schedule is just asking for.",
        ),
        Panel(
            "Lag by project",
            {"{{project}}": f"max by (project) (langfuse_blob_export_lag_seconds{{{SELECTED}}})"},
            "From the end of the newest committed window to now; a window and the waiting time are normal.",
            unit="s",
        ),
        Panel(
            "Projects in trouble",
            {"": f"max by (project, state) (langfuse_blob_export_project_state{{{IN_TROUBLE}}})"},
            "retrying, backing_off, stopped or catching_up; `langfuse-worker export status` says why.",
            kind="table",
        ),
        Panel(
            "Changed windows that wait",
            {"{{project}}": f"sum by (project) (langfuse_blob_export_late_windows{{{SELECTED}}})"},
            "Rows changed after their window's export; as of the last look. What grows here is more than the "
            "looks may ask for, or belongs to a project in trouble.",
            stacked=True,
        ),
        Panel(
            "Every table",
            {"": f"max by (project, table) (langfuse_blob_export_lag_seconds{{{SELECTED}}})"},
            kind="table",
            unit="s",
            height=10,
        ),
        Panel(
            "Scheduled windows by outcome",
            {
                "{{outcome}}": "sum by (outcome) "
                f'(increase({WINDOWS}_count{{mode="steady"}}[$__rate_interval]))'
            },
            stacked=True,
            height=10,
        ),
    ],
    variables={"project": "label_values(langfuse_blob_export_lag_seconds, project)"},
    span="7d",
)

ISOLATION = Dashboard(
    "isolation",
    "Isolation",
    "Whether catch-up delays what is scheduled, and whether exports delay ingestion. What they do to the "
    "queries of people is in ClickHouse's own query_log; docs/operations.md has the query.",
    [
        Panel(
            "CPU that exports take from ClickHouse",
            {"{{mode}}": f"sum by (mode) (rate({QUERIES}_cpu_seconds_total[{COSTS}]))"},
            "Cores. Known some minutes after a run has ended, if exports may read system.query_log.",
            stacked=True,
        ),
        Panel(
            "Peak memory of their queries",
            quantiles(f"{QUERIES}_peak_memory_bytes", "table", window=COSTS),
            "Of the hungriest query of each run; max_memory_usage is its limit.",
            unit="bytes",
        ),
        Panel(
            "Rows that ClickHouse reads for them",
            {"{{table}}": f"sum by (table) (rate({QUERIES}_read_rows_total[{COSTS}]))"},
            "Many more than are exported: each window reads its whole day.",
            unit="rowsps",
            stacked=True,
        ),
        Panel(
            "Bytes that ClickHouse reads for them",
            {"{{table}}": f"sum by (table) (rate({QUERIES}_read_bytes_total[{COSTS}]))"},
            "Uncompressed.",
            unit="Bps",
            stacked=True,
        ),
        Panel(
            "Load that exports put on ClickHouse",
            {
                "{{mode}}": "sum by (mode) (rate(langfuse_blob_export_bytes_total[$__rate_interval]))",
            },
            "Bytes of finished objects.",
            unit="Bps",
            stacked=True,
        ),
        Panel(
            "Batches of consumers meanwhile",
            quantiles(BATCHES, "queue", 'outcome="success"'),
            "They write to the same ClickHouse. Flat while exports run: isolation works.",
            unit="ms",
        ),
        Panel(
            "Duration of scheduled and catch-up windows",
            quantiles(WINDOWS, "mode", 'outcome="success"'),
            "Steady should not grow while catchup runs.",
            unit="ms",
        ),
        Panel(
            "Windows that schedules wait for, while catch-up runs",
            {
                "most windows behind": "max(langfuse_blob_export_windows_behind)",
                "catch-up windows": f'sum(increase({WINDOWS}_count{{mode="catchup"}}[$__rate_interval]))',
            },
        ),
        Panel(
            "ClickHouse turned exports away",
            {
                "{{reason}} {{mode}}": "sum by (reason, mode) "
                f"(increase(langfuse_blob_export_failures_total{{{REFUSALS}}}[$__rate_interval]))"
            },
            "Overload, memory, time: the limits of the export profile at work.",
            stacked=True,
        ),
        Panel(
            "Age of the oldest waiting job",
            {"{{queue}}": "max by (queue) (langfuse_queue_oldest_age_seconds)"},
            "Grows when consumers are starved.",
            unit="s",
        ),
    ],
)

QUEUE = 'queue=~"$queue"'
INGESTION = Dashboard(
    "ingestion",
    "Ingestion",
    "From the queues to ClickHouse.",
    [
        stat("Waiting jobs", f'sum(max by (queue) (langfuse_queue_depth{{{QUEUE}, state="waiting"}}))'),
        stat(
            "Oldest job",
            f"max(langfuse_queue_oldest_age_seconds{{{QUEUE}}})",
            unit="s",
            thresholds={"orange": 60, "red": 300},
        ),
        stat(
            "Dead letters now",
            f'sum(max by (queue) (langfuse_queue_depth{{{QUEUE}, state="failed"}}))',
            thresholds={"red": 1},
        ),
        stat("Rows written", "sum(increase(langfuse_ingestion_rows_written_total[$__range]))"),
        Panel(
            "Jobs by state",
            {"{{queue}} {{state}}": f"max by (queue, state) (langfuse_queue_depth{{{QUEUE}}}) > 0"},
            "waiting, active, scheduled for their next attempt, failed for good.",
            stacked=True,
        ),
        Panel(
            "Age of the oldest waiting job",
            {"{{queue}}": f"max by (queue) (langfuse_queue_oldest_age_seconds{{{QUEUE}}})"},
            unit="s",
        ),
        Panel("Wait in the queue", quantiles(WAITS, "queue", QUEUE), unit="ms"),
        Panel("Duration of a batch", quantiles(BATCHES, "queue", QUEUE), unit="ms"),
        Panel(
            "Jobs a second",
            {"{{queue}}": f"sum by (queue) (rate({WAITS}_count{{{QUEUE}}}[$__rate_interval]))"},
            stacked=True,
        ),
        Panel(
            "Batches by outcome",
            {
                "{{queue}} {{outcome}}": f"sum by (queue, outcome) (increase({BATCHES}_count{{{QUEUE}}}"
                "[$__rate_interval]))"
            },
            stacked=True,
        ),
        Panel(
            "Rows written a second",
            {"{{table}}": "sum by (table) (rate(langfuse_ingestion_rows_written_total[$__rate_interval]))"},
            unit="rowsps",
            stacked=True,
        ),
        Panel(
            "Retries and dead letters",
            {
                "{{queue}} retried": f"sum by (queue) "
                f"(increase(langfuse_queue_retries_total{{{QUEUE}}}[$__rate_interval]))",
                "{{queue}} dead": f"sum by (queue) "
                f"(increase(langfuse_queue_dead_letters_total{{{QUEUE}}}[$__rate_interval]))",
            },
            stacked=True,
        ),
    ],
    variables={"queue": "label_values(langfuse_queue_depth, queue)"},
    span="6h",
)

DASHBOARDS = [HEALTH, LAG, ISOLATION, INGESTION]
