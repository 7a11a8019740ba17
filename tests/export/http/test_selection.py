"""Columns, tables and rows that are chosen beyond Langfuse's own export, read back from the objects."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langfuse_export.formats import Encoding
from langfuse_export.tables import ALL_TABLES, Table, with_corrections
from tests.export.http.exporting import CSV, ENCODINGS, HOUR, JSONL, PARQUET, Deployment
from tests.export.http.strategies import MAKERS, TEXT
from tests.export.http.test_final import SLOW
from tests.rows import NOON, event, run_item, score, trace

SCORES = ALL_TABLES["scores"]
# A filter's name, the column it looks at, a value, and the tables that have it.
FILTERS = [
    ("environment", "environment", "production", ["traces", "observations", "scores", "events"]),
    ("tags", "tags", "vip", ["traces", "events"]),
    ("type", "type", "AGENT", ["observations", "events"]),
    ("level", "level", "ERROR", ["observations", "events"]),
    ("user_id", "user_id", "ada", ["traces", "events"]),
    ("trace_name", "name", "checkout", ["traces"]),
    ("trace_name", "trace_name", "checkout", ["events"]),
]


def _export(deployment: Deployment, *tables: Table) -> None:
    deployment.tables = tables
    deployment.export()


def _column(name: str, column: str, value: str) -> dict[str, Any]:
    return {column: [value, "other"] if column == "tags" else value}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
def test_all_fields_of_scores_are_an_option(deployment: Deployment, encoding: Encoding) -> None:
    extra = {
        "metadata": {"why": 'it said "no"'},
        "author_user_id": "ada",
        "config_id": "c",
        "queue_id": "q",
        "execution_trace_id": "x",
        "long_string_value": "ü" * 5000,
    }
    deployment.encoding = encoding
    deployment.insert("scores", score("s", **extra))

    _export(deployment, SCORES.only("all"))

    [row] = deployment.rows("scores")
    assert list(row) == [*SCORES.column_names, *extra]
    if isinstance(row["metadata"], str):
        row["metadata"] = json.loads(row["metadata"])
    assert {name: row[name] for name in extra} == extra
    [file] = deployment.manifest().files
    assert [column.name for column in file.columns] == list(row)


def test_a_single_extra_column_comes_after_the_others(deployment: Deployment) -> None:
    deployment.insert("scores", score("s", author_user_id="ada"))
    _export(deployment, SCORES.only(["author_user_id", "value"]))
    [row] = deployment.rows("scores")
    assert list(row) == ["id", "timestamp", "project_id", "value", "author_user_id"]


def test_corrections_are_exported_when_asked_for(deployment: Deployment) -> None:
    rows = [score("number"), score("correction", data_type="CORRECTION", long_string_value="better")]
    deployment.insert("scores", *rows)

    _export(deployment, SCORES)
    assert deployment.ids("scores") == ["number"]
    assert deployment.manifest().files[0].row_count == 1

    _export(deployment, with_corrections(SCORES.only("all")))
    assert {row["id"]: row["long_string_value"] for row in deployment.rows("scores")} == {
        "number": "",
        "correction": "better",
    }


@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV], ids=lambda e: e.extension)
@pytest.mark.parametrize("name", list(ALL_TABLES))
def test_every_column_there_is_can_be_exported(deployment: Deployment, name: str, encoding: Encoding) -> None:
    deployment.encoding = encoding
    table = ALL_TABLES[name].only("all")
    deployment.insert(table.source, MAKERS[name]("a"))

    _export(deployment, table)

    [row] = deployment.rows(name)
    assert list(row) == table.column_names
    assert row["id"] == "a"


def test_metadata_is_whole_whatever_the_field_groups(deployment: Deployment) -> None:
    """Defect D5 of Langfuse: without `io`, values are cut at 200 characters."""
    deployment.insert("events_full", event("e", metadata_names=["k"], metadata_values=["x" * 5000]))
    for groups in (["metadata"], ["core", "metadata", "io"], None):
        _export(deployment, ALL_TABLES["events"].only(groups=groups))
        assert deployment.rows("events")[0]["metadata"] == {"k": "x" * 5000}, groups


def test_items_of_dataset_runs_are_a_fifth_table(deployment: Deployment) -> None:
    later = HOUR.end + timedelta(hours=3)
    deployment.insert("dataset_run_items_rmt", run_item("kept"), run_item("gone"), run_item("later", later))
    deployment.insert("dataset_run_items_rmt", run_item("kept", version=2, error="timeout"))
    deployment.insert("dataset_run_items_rmt", run_item("gone", version=2, deleted=True))
    deployment.insert("dataset_run_items_rmt", run_item("moved"))
    deployment.insert("dataset_run_items_rmt", run_item("moved", later, version=2))

    _export(deployment, ALL_TABLES["traces"], ALL_TABLES["dataset_run_items"])

    assert {row["id"]: row["error"] for row in deployment.rows("dataset_run_items")} == {"kept": "timeout"}
    assert "p1/dataset_run_items/2026-06-01T13-00-00.parquet" in deployment.files()
    assert deployment.manifest().tables == ["traces", "dataset_run_items"]
    assert deployment.manifest().files[1].time_column == "created_at"


def test_a_window_reads_the_payload_of_its_own_run_items_only(deployment: Deployment) -> None:
    """No index knows `created_at`: without care, every window would read every input there is."""
    per_run, payload = 8192, 500
    moment = f"toDateTime('{HOUR.start:%F %T}', 'UTC') + INTERVAL intDiv(number, {per_run}) HOUR"
    rows = "INSERT INTO dataset_run_items_rmt (id, project_id, dataset_id, dataset_run_id, created_at, "
    rows += "event_ts, dataset_item_input) SELECT toString(number), 'p1', 'd', "
    rows += f"'run' || intDiv(number, {per_run}), {moment}, now(), repeat('x', {payload}) "
    rows += f"FROM numbers({10 * per_run})"
    deployment.server.execute(rows)

    _export(deployment, ALL_TABLES["dataset_run_items"])

    assert deployment.manifest().files[0].row_count == per_run
    [read] = deployment.server.finished_queries(
        "read_bytes",
        "log_comment LIKE '%\"export\"%' AND query LIKE 'INSERT%dataset_run_items_rmt%' "
        "ORDER BY event_time_microseconds DESC LIMIT 1",
    )
    assert read["read_bytes"] < 4 * per_run * payload


@pytest.mark.parametrize(("name", "column", "value", "tables"), FILTERS)
@pytest.mark.parametrize("encoding", [PARQUET, CSV], ids=lambda e: e.extension)
def test_a_filter_chooses_rows_of_every_table_that_has_it(
    deployment: Deployment, encoding: Encoding, name: str, column: str, value: str, tables: Sequence[str]
) -> None:
    deployment.encoding = encoding
    for table in tables:
        make, source = MAKERS[table], ALL_TABLES[table].source
        rows = [make("wanted", **_column(name, column, value)), make("other", **_column(name, column, "no"))]
        deployment.insert(source, *rows, make("plain"))

    _export(deployment, *(ALL_TABLES[table].filtered({name: [value, "never"]}) for table in tables))

    for table in tables:
        assert deployment.ids(table) == ["wanted"], table
    for file in deployment.manifest().files:
        assert (file.row_count, file.where) == (1, {name: [value, "never"]})


@pytest.mark.parametrize(("name", "column", "value", "tables"), FILTERS)
def test_a_newer_version_that_left_the_filter_does_not_bring_back_the_older_one(
    deployment: Deployment, name: str, column: str, value: str, tables: Sequence[str]
) -> None:
    """Parts that are not merged, each with an index that could leave out the part with the newer version."""
    for table in tables:
        make, source = MAKERS[table], ALL_TABLES[table].source
        deployment.server.execute(f"SYSTEM STOP MERGES {source}")
        inside, outside = _column(name, column, value), _column(name, column, "no")
        deployment.insert(source, make("left", **inside), make("deleted", **inside), make("came", **outside))
        deployment.insert(source, make("left", version=2, **outside))
        deployment.insert(source, make("came", version=2, **inside))
        deployment.insert(source, make("deleted", version=2, deleted=True, **outside))
        if name == "type" and table == "observations":  # of the sorting key: another type is another row
            deployment.insert(source, make("left", version=3, deleted=True, **inside))
            deployment.insert(source, make("deleted", version=3, deleted=True, **inside))

    _export(deployment, *(ALL_TABLES[table].filtered({name: [value]}) for table in tables))

    for table in tables:
        assert deployment.ids(table) == ["came"], table
        deployment.server.execute(f"SYSTEM START MERGES {ALL_TABLES[table].source}")


def test_filters_hold_against_a_profile_that_moves_conditions_before_final(deployment: Deployment) -> None:
    deployment.insert("traces", trace("left", user_id="ada"))
    deployment.insert("traces", trace("left", user_id="bob", version=2))
    table = ALL_TABLES["traces"].filtered({"user_id": ["ada"]})
    _export(deployment, table)
    assert deployment.ids("traces") == []
    sent = deployment.server.exports_in_query_log()[-1]
    assert sent["settings"]["use_skip_indexes_if_final"] == "0"


def test_all_filters_together_and_a_table_without_them_is_whole(deployment: Deployment) -> None:
    where = {"environment": ["production"], "level": ["ERROR", "WARNING"], "tags": ["vip"]}
    deployment.insert(
        "events_full",
        event("all", environment="production", level="WARNING", tags=["a", "vip"]),
        event("no tag", environment="production", level="ERROR"),
        event("no level", environment="production", tags=["vip"]),
    )
    deployment.insert("dataset_run_items_rmt", run_item("item"))

    _export(deployment, *(ALL_TABLES[name].filtered(where) for name in ("events", "dataset_run_items")))

    assert deployment.ids("events") == ["all"]
    assert deployment.ids("dataset_run_items") == ["item"]
    assert [file.where for file in deployment.manifest().files] == [where, None]
    assert (
        b'"where"'
        not in deployment.store.read(deployment.project.manifest_key(HOUR)).split(b"dataset_run")[-1]
    )


def test_values_of_a_filter_are_never_part_of_the_query(deployment: Deployment) -> None:
    @settings(max_examples=25, suppress_health_check=SLOW)
    @given(st.lists(TEXT.filter(bool), min_size=1, max_size=3, unique=True))
    def check(names: Sequence[str]) -> None:
        deployment.server.execute("TRUNCATE TABLE traces")
        deployment.insert("traces", *(trace(f"t{n}", name=name) for n, name in enumerate(names)), trace("no"))
        where: Mapping[str, Sequence[str]] = {"trace_name": names, "environment": ["default"]}
        _export(deployment, ALL_TABLES["traces"].filtered(where))
        assert {row["name"] for row in deployment.rows("traces")} == set(names)

    check()


def test_old_consumers_see_nothing_of_the_options(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t", NOON))
    deployment.export()
    manifest = json.loads(deployment.store.read(deployment.project.manifest_key(HOUR)))
    for file in manifest["files"]:
        assert "where" not in file
        assert all(list(column) == ["name", "type"] for column in file["schema"])
