"""A day of events is ingested, exported, and read back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from langfuse_export.windows import Frequency, Window
from tests.export.http.exporting import Deployment as Exporting
from tests.ingest.deployment import Deployment
from tests.ingest.sessions import sessions

DAY = Window(datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 2, tzinfo=UTC))


def test_a_day_of_events_is_in_the_parquet_files(deployment: Deployment, tmp_path: Path) -> None:
    events = list(sessions(120, start=DAY.start + timedelta(hours=6)))
    deployment.ingest(events, size=60)

    with Exporting(deployment.clickhouse, tmp_path / "blobs", frequency=Frequency.DAILY) as exporting:
        exporting.export(DAY)
        exported = {
            table: {row["id"]: row for row in exporting.rows(table, DAY)}
            for table in ("traces", "observations", "scores")
        }
        spans = exporting.rows("events", DAY)

    for table, count in (("traces", 120), ("observations", 240), ("scores", 240)):
        stored = {row["id"]: row for row in deployment.rows(table)}
        assert exported[table].keys() == stored.keys()
        assert len(stored) == count
        for name in ("name", "environment", "input", "output", "value", "comment"):
            expected = {id: row[name] for id, row in stored.items() if name in row}
            assert {id: row[name] for id, row in exported[table].items() if name in row} in (expected, {})
    assert len(spans) == 360
    sent = {e["body"]["id"]: e["body"]["output"] for e in events if e["type"] == "span-update"}
    assert {id: exported["observations"][id]["output"] for id in sent} == sent
