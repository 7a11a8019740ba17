"""The demo data against the real engine: what goes in comes out, FINAL sees one version of each record."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from langfuse_export.demo.data import PROJECTS, Batch, batches
from langfuse_worker.schema import statements

START = datetime(2026, 1, 30, tzinfo=UTC)
DAYS = 1
END = START + timedelta(days=DAYS)
SUPPORT, REVIEW = PROJECTS
KEYS = {
    "traces": "id",
    "observations": "id",
    "scores": "id",
    "events_full": "span_id",
    "dataset_run_items_rmt": "id",
}


@dataclass
class Seeded:
    """A seeded database, and the rows that went in."""

    client: Client
    inserted: list[Batch]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.client.query(sql).result_rows]

    def value(self, sql: str) -> Any:
        return self.query(sql)[0][0]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Inserted rows in the order of their arrival."""
        found = (batch for batch in self.inserted if batch.table == table)
        return [dict(zip(batch.columns, row, strict=True)) for batch in found for row in batch.rows]

    def newest(self, table: str) -> dict[str, dict[str, Any]]:
        """The rows that FINAL should show, by key."""
        last = {row[KEYS[table]]: row for row in sorted(self.rows(table), key=lambda row: row["event_ts"])}
        return {key: row for key, row in last.items() if not row["is_deleted"]}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    path: Path = tmp_path_factory.mktemp("demo") / "db"
    client = clickhouse_connect.get_client(interface="chdb", path=str(path))
    try:
        for statement in statements() * 2:
            client.command(statement)
        # Without merges, every version stays visible to a query that does not say FINAL.
        client.command("SYSTEM STOP MERGES")
        inserted = [batch for project in PROJECTS for batch in batches(project, START, DAYS)]
        for batch in inserted:
            client.insert(batch.table, batch.rows, column_names=batch.columns)
        yield Seeded(client, inserted)
    finally:
        client.close()


def test_schema_has_every_table(seeded: Seeded) -> None:
    tables = dict(seeded.query("SELECT name, engine FROM system.tables WHERE database = currentDatabase()"))
    assert tables == {
        **dict.fromkeys([*KEYS, "events_core", "blob_storage_file_log"], "ReplacingMergeTree"),
        "events_core_mv": "MaterializedView",
    }
    assert all(" IF NOT EXISTS " in statement for statement in statements())


@pytest.mark.parametrize("table", KEYS)
def test_every_version_of_both_projects_is_stored(seeded: Seeded, table: str) -> None:
    assert {row["project_id"] for row in seeded.rows(table)} == {"support-bot", "code-review-agent"}
    assert seeded.value(f"SELECT count() FROM {table}") == len(seeded.rows(table))


@pytest.mark.parametrize("table", KEYS)
def test_final_shows_the_newest_versions(seeded: Seeded, table: str) -> None:
    expected = seeded.newest(table)
    inserted = len(seeded.rows(table))
    found = seeded.query(f"SELECT {KEYS[table]} FROM {table} FINAL")
    assert Counter(key for (key,) in found) == dict.fromkeys(expected, 1)
    assert len(found) <= inserted
    if table != "dataset_run_items_rmt":
        assert len(found) < inserted


@pytest.mark.parametrize("table", ["traces", "observations", "scores", "events_full"])
def test_deleted_rows_are_absent_in_final(seeded: Seeded, table: str) -> None:
    deleted = {row[KEYS[table]] for row in seeded.rows(table) if row["is_deleted"]}
    found = {key for (key,) in seeded.query(f"SELECT {KEYS[table]} FROM {table} FINAL")}
    assert deleted
    assert not deleted & found


def test_updates_fill_end_output_and_cost(seeded: Seeded) -> None:
    versions = Counter(row["id"] for row in seeded.rows("observations") if not row["is_deleted"])
    updated = {key for key, count in versions.items() if count > 1}
    expected = seeded.newest("observations")
    found = seeded.query("SELECT id, end_time, output, total_cost, usage_details FROM observations FINAL")
    for key, end_time, output, total_cost, usage in found:
        row = expected[key]
        assert _utc(end_time) == row["end_time"]
        assert (output, total_cost, usage) == (row["output"], row["total_cost"], row["usage_details"])
    first = {row["id"]: row for row in reversed(seeded.rows("observations"))}
    assert updated
    assert all(first[key]["end_time"] is None for key in updated)
    assert any(expected[key]["total_cost"] for key in updated & expected.keys())


def test_text_survives_unchanged(seeded: Seeded) -> None:
    expected = {key: (row["input"], row["output"]) for key, row in seeded.newest("traces").items()}
    found = seeded.query("SELECT id, input, output FROM traces FINAL")
    assert {key: (given, answer) for key, given, answer in found} == expected
    everything = "\n".join(given for _, given, _ in found)
    for sample in (
        "Größe",
        "ありますか",
        "مرحبًا",
        "मेरा रिफंड",
        "👨‍👩‍👧‍👦",
        "\t<- here\nand",
        r" \u0041 into A",
        r"\\u0041",
    ):
        assert sample in everything, sample


def test_json_within_json_can_be_read(seeded: Seeded) -> None:
    rows = seeded.query("SELECT tool_calls, tool_call_names, tool_definitions FROM observations FINAL")
    calls = [
        (json.loads(call), name) for texts, names, _ in rows for call, name in zip(texts, names, strict=True)
    ]
    assert {name for _, name in calls} == {"lookup_order", "run_tests", "search_code"}
    assert all(isinstance(json.loads(call["arguments"]), dict) for call, _ in calls)
    assert {name for _, _, tools in rows for name in tools} >= {"refund_order", "git_diff"}


def test_only_events_core_cuts_metadata(seeded: Seeded) -> None:
    longest = "SELECT max(arrayMax(arrayMap(x -> lengthUTF8(x), metadata_values))) FROM {} FINAL"
    assert seeded.value(longest.format("events_full")) > 400
    assert seeded.value(longest.format("events_core")) == 200
    assert seeded.value("SELECT max(lengthUTF8(input)) FROM events_core FINAL") == 200


def test_events_mirror_observations(seeded: Seeded) -> None:
    differing = seeded.value(
        "SELECT count() FROM observations AS o FINAL FULL JOIN events_full AS e FINAL ON o.id = e.span_id"
        " WHERE o.id = '' OR e.span_id = '' OR o.trace_id != e.trace_id OR ifNull(o.input, '') != e.input"
        " OR ifNull(o.output, '') != e.output OR ifNull(o.total_cost, 0) != e.total_cost"
        " OR toUnixTimestamp64Milli(o.start_time) != toUnixTimestamp64Milli(e.start_time)"
    )
    assert differing == 0
    roots = "SELECT countIf(trace_name = ''), countIf(session_id != '') > 0, countIf(notEmpty(tags)) > 0"
    assert seeded.query(f"{roots} FROM events_full FINAL WHERE parent_span_id = ''") == [(0, True, True)]


def test_rows_on_both_sides_of_every_hour(seeded: Seeded) -> None:
    for table, time in (("traces", "timestamp"), ("observations", "start_time"), ("scores", "timestamp")):
        offsets = Counter(row[time].time().replace(hour=0).isoformat() for row in seeded.rows(table))
        assert offsets["00:00:00"] >= 24, table
        assert offsets["00:59:59.999000"] >= 24, table
    assert any(row["start_time"].microsecond == 999_999 for row in seeded.rows("events_full"))


def test_every_kind_of_record(seeded: Seeded) -> None:
    types = {"NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"}
    scores = seeded.rows("scores")
    assert {row["data_type"] for row in scores} == types
    assert all(row["long_string_value"] for row in scores if row["data_type"] == "CORRECTION")
    observations = seeded.rows("observations")
    assert {"GENERATION", "SPAN", "EVENT", "TOOL", "AGENT"} <= {row["type"] for row in observations}
    assert all(row["status_message"] for row in observations if row["level"] == "ERROR")
    assert any("cache_read_input_tokens" in row["usage_details"] for row in observations)
    assert {"production", "staging", "ci", "sdk-experiment"} <= {row["environment"] for row in observations}
    large = {row["trace_id"] for row in observations if len(row["input"] or "") > 300_000}
    assert 2 <= len(large) <= 8


def test_traffic_follows_the_day(seeded: Seeded) -> None:
    hours = Counter(row["timestamp"].hour for row in seeded.newest("traces").values())
    assert hours[10] > 8 * hours[3]


def test_times_are_utc_and_nothing_arrives_after_the_end(seeded: Seeded) -> None:
    for batch in seeded.inserted:
        arrival = batch.columns.index("event_ts")
        for row in batch.rows:
            assert row[arrival] < END
            assert all(value.tzinfo is UTC for value in row if isinstance(value, datetime))


@pytest.mark.parametrize("project", PROJECTS)
def test_the_same_call_gives_the_same_rows(project: Any) -> None:
    assert list(batches(project, START, 1)) == list(batches(project, START, 1))


def test_an_hour_is_the_same_in_every_period() -> None:
    later = START + timedelta(hours=6)
    whole = {(batch.table, repr(row)) for batch in batches(REVIEW, START, 2) for row in batch.rows}
    part = {(batch.table, repr(row)) for batch in batches(REVIEW, later, 1) for row in batch.rows}
    assert part < whole


def test_the_start_is_cut_to_the_hour_in_utc() -> None:
    local = datetime(2026, 1, 30, 5, 47, 12, tzinfo=timezone(timedelta(hours=5)))
    assert next(batches(SUPPORT, local, 1)) == next(batches(SUPPORT, START, 1))


def test_an_impossible_period_is_refused() -> None:
    with pytest.raises(ValueError, match="timezone"):
        next(batches(SUPPORT, datetime(2026, 1, 1), 1))
    with pytest.raises(ValueError, match="days"):
        next(batches(SUPPORT, START, 0))


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value
