"""A day of observations, at once and as its hours: what ClickHouse reads for either."""

from dataclasses import replace
from datetime import timedelta

from langfuse_export.exporter import WindowExporter
from langfuse_export.tables import OBSERVATIONS
from langfuse_export.windows import Window
from tests.export.http.exporting import HOUR, Deployment
from tests.rows import observation

ROWS = 2000
_MIDNIGHT = HOUR.start.replace(hour=0)
DAY = Window(_MIDNIGHT, _MIDNIGHT + timedelta(days=1))
HOURS = [Window(_MIDNIGHT + timedelta(hours=n), _MIDNIGHT + timedelta(hours=n + 1)) for n in range(24)]


def export_whole_day(deployment: Deployment, run_id: str) -> WindowExporter:
    """Insert the rows, in two ClickHouse parts, and export the day as one window; with what was done so."""
    for part in range(2):
        rows = [
            observation(
                f"{n * 7919 % 10_007}", _MIDNIGHT + timedelta(seconds=43 * n + part), output="x" * 2000
            )
            for n in range(part, ROWS, 2)
        ]
        deployment.insert("observations", *rows)
    exporter = replace(deployment.exporter(), run_id=run_id)
    exporter.export(DAY, [OBSERVATIONS])
    return exporter


def assert_hours_read_the_day_once(deployment: Deployment, run_id: str) -> None:
    """Whether all hours together have read about as much as the day at once."""
    rows = deployment.server.finished_queries(
        "JSONExtractString(log_comment, 'purpose') AS purpose, toFloat64(sum(read_bytes)) AS bytes, "
        "groupUniqArray(JSONExtractString(log_comment, 'window')) AS windows",
        f"JSONExtractString(log_comment, 'run') = '{run_id}' GROUP BY purpose",
    )
    read = {row["purpose"]: row for row in rows}
    assert read.keys() == {"count", "export", "export-day"}
    assert all(row["windows"] == [str(DAY)] for row in read.values())
    # The counts of both are among `count`.
    assert read["export-day"]["bytes"] + read["count"]["bytes"] <= 1.2 * read["export"]["bytes"]
