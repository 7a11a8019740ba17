"""What `exports.yaml` means."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from langfuse_export.catalog.load import Sources, resolve
from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_export.formats import Compression, FileFormat
from langfuse_export.tables import TABLES, Hash, Replace
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency
from langfuse_worker.settings import Settings
from tests.export.catalog.documents import DESTINATION, NOW, PROJECT, SERVER, catalog_of, write


def test_the_shape_of_the_documentation_becomes_an_export() -> None:
    document = """
destinations:
  archive:
    url: s3://llm-archive/langfuse/
    endpoint: http://127.0.0.1:9000
    region: eu-central-1
    access_key_id: ${ARCHIVE_KEY_ID}
    secret_access_key: ${ARCHIVE_SECRET}
projects:
  - id: support-bot
    destination: archive
    tables: [traces, observations, scores, events]
    frequency: daily
    format: jsonl
    compression: gzip
    start: 2026-06-01
"""
    Path("exports.yaml").write_text(document)

    [project] = resolve(Sources(read_yaml(Path("exports.yaml"))), Settings(), NOW).projects

    assert (project.project_id, project.name, project.enabled) == ("support-bot", "support-bot", True)
    assert [table.name for table in project.tables] == ["traces", "observations", "scores", "events"]
    assert project.frequency is Frequency.DAILY
    assert (project.encoding.format, project.encoding.compression) == (FileFormat.JSONL, Compression.GZIP)
    assert project.start == datetime(2026, 6, 1, tzinfo=UTC)
    assert project.destination.url == "s3://llm-archive/langfuse/"
    assert (project.destination.access_key_id, project.destination.secret_access_key) == (
        "the-key",
        "hunter2",
    )
    assert (project.limits.max_threads, project.limits.priority) == (10, 2)


def test_a_star_stands_for_every_project_that_is_not_listed() -> None:
    march = datetime(2026, 3, 3, 3, 33, tzinfo=UTC)
    found = {"a": march, "b": march, "support-bot": march}

    catalog = catalog_of(
        {**PROJECT, "frequency": "daily"}, {"id": "*", "destination": "archive"}, first_rows=found
    )

    assert [(p.project_id, p.frequency.value) for p in catalog.projects] == [
        ("support-bot", "daily"),
        ("a", "hourly"),
        ("b", "hourly"),
    ]
    assert catalog.project("a").start == datetime(2026, 3, 3, tzinfo=UTC)


def test_a_found_project_whose_id_is_no_folder_is_left_out() -> None:
    found = dict.fromkeys(["", "..", "a/b", "p2"], NOW)

    catalog = catalog_of({"id": "*", "destination": "archive"}, first_rows=found)

    assert [project.project_id for project in catalog.projects] == ["p2"]


def test_a_schedule_is_a_cron_line_by_the_clock_of_a_zone_utc_by_default() -> None:
    schedules = [{"cron": "30  6 * * 1-5", "timezone": "Europe/Berlin"}, {"cron": "0 2 * * *"}, None]
    projects = [{**PROJECT, "id": f"p{n}", "schedule": schedule} for n, schedule in enumerate(schedules)]

    timings = [project.timing for project in catalog_of(*projects).projects]

    assert timings == [Timing("30 6 * * 1-5", "Europe/Berlin"), Timing("0 2 * * *", "UTC"), None]


def test_a_project_without_rows_and_start_begins_now() -> None:
    [project] = catalog_of({"id": "new", "destination": "archive"}).projects
    assert project.start == datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_limits_may_be_lowered() -> None:
    limits = {"max_threads": 2, "priority": 9, "max_memory_usage": 10**9, "max_execution_time_s": 60}
    [project] = catalog_of({**PROJECT, "limits": limits}).projects
    assert vars(project.limits) == limits


def test_chosen_columns_and_groups_keep_the_order_and_the_keys() -> None:
    [project] = catalog_of(
        {**PROJECT, "columns": {"traces": ["tags", "name"]}, "field_groups": ["usage"]}
    ).projects
    assert project.table("traces").column_names == ["id", "timestamp", "name", "project_id", "tags"]
    observations = project.table("observations").column_names
    assert observations[:3] == ["id", "trace_id", "project_id"]
    assert {"usage_details", "total_cost"} <= set(observations)
    assert "input" not in observations


def test_by_default_langfuses_tables_are_exported_as_they_are() -> None:
    [project] = catalog_of(PROJECT).projects
    assert project.tables == tuple(TABLES.values())


def test_more_columns_more_scores_and_fewer_rows_are_chosen() -> None:
    where = {"environment": ["production"], "level": ["ERROR"]}
    [project] = catalog_of(
        {
            **PROJECT,
            "tables": ["observations", "scores", "dataset_run_items"],
            "columns": {"scores": "all", "observations": ["name", "provided_cost_details"]},
            "include_corrections": True,
            "where": where,
        }
    ).projects
    observations, scores, items = project.tables
    assert scores.column_names[-2:] == ["execution_trace_id", "long_string_value"]
    assert scores.row_filter is None
    assert observations.column_names[-2:] == ["name", "provided_cost_details"]
    assert observations.chosen_rows == where
    assert scores.chosen_rows == {"environment": ["production"]}
    assert items.chosen_rows == {}


def test_parquet_is_compressed_as_the_project_or_the_deployment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    projects = [PROJECT, {**PROJECT, "id": "archive", "compression": "zstd"}]
    assert [project.encoding.codec for project in catalog_of(*projects).projects] == ["snappy", "zstd"]

    monkeypatch.setenv("LANGFUSE_CLICKHOUSE_DATA_EXPORT_PARQUET_COMPRESSION", "zstd")
    assert [project.encoding.codec for project in catalog_of(*projects).projects] == ["zstd", "zstd"]


def test_owners_are_those_that_a_project_names() -> None:
    usual, owned = catalog_of(PROJECT, {**PROJECT, "id": "other", "owners": ["team:search"]}).projects

    assert (usual.owners, owned.owners) == (("team:data-platform",), ("team:search",))


def test_objects_without_rows_are_written_unless_a_project_skips_them() -> None:
    usual, skipping = catalog_of(PROJECT, {**PROJECT, "id": "other", "skip_empty": True}).projects

    assert (usual.skip_empty, skipping.skip_empty) == (False, True)


def test_masks_are_those_of_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_EXPORT_MASK_KEY", "correct horse battery")
    email, phone = {"replace": r"\S+@\S+", "with": "[email]"}, {"replace": r"\+\d{6,}"}
    mask = {"user_id": "hash", "input": "drop", "output": email, "metadata": [email, phone]}
    [project] = catalog_of({**PROJECT, "mask": mask}).projects
    traces = project.table("traces")
    assert "input" not in traces.column_names
    assert traces.column("user_id").mask == Hash(b"correct horse battery")
    assert traces.column("output").mask == Replace(((r"\S+@\S+", "[email]"),))
    assert traces.column("metadata").mask == Replace(((r"\S+@\S+", "[email]"), (r"\+\d{6,}", "***")))
    assert project.table("scores").columns == TABLES["scores"].columns
    assert "correct horse" not in repr(project)


def test_keys_are_langfuses_unless_the_catalog_has_others() -> None:
    window = Frequency.HOURLY.window(datetime(2026, 6, 1, 12, tzinfo=UTC))
    template = {"key": "lake/{table}/{project}/{start:%Y/%m/%d}/{start:%H}.{ext}"}
    for choice, traces, manifest in (
        (
            {},
            "support-bot/traces/2026-06-01T13-00-00.parquet",
            "support-bot/manifests/2026-06-01T13-00-00.json",
        ),
        (
            {"layout": "hive"},
            "traces/project=support-bot/dt=2026-06-01/hour=12/2026-06-01T13-00-00.parquet",
            "manifests/project=support-bot/dt=2026-06-01/hour=12/2026-06-01T13-00-00.json",
        ),
        (
            template,
            "lake/traces/support-bot/2026/06/01/12.parquet",
            "lake/manifests/support-bot/2026/06/01/12.json",
        ),
    ):
        [project] = catalog_of({**PROJECT, **choice}).projects
        assert project.object_key(project.table("traces"), window) == traces
        assert project.manifest_key(window) == manifest
        assert project.staging_folder(project.table("traces"), window) == (
            "_incomplete/" + traces.removesuffix(".parquet")
        )


def test_a_secret_is_in_no_representation() -> None:
    [project] = catalog_of(PROJECT).projects
    assert "hunter2" not in repr(project)
    assert "hunter2" not in repr(read_yaml(Path("exports.yaml")))


def test_objects_pass_through_the_worker_unless_the_destination_says_otherwise() -> None:
    [by_worker] = catalog_of(PROJECT).projects
    document = {"destinations": {"archive": DESTINATION | SERVER}, "projects": [PROJECT]}
    [by_server] = resolve(Sources(read_yaml(write(document))), Settings(), NOW).projects

    assert (by_worker.named_collection, by_server.named_collection) == (None, "langfuse_archive")
    assert by_worker.destination == by_server.destination
