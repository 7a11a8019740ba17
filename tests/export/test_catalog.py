"""`exports.yaml`: what it means, and what is said of a wrong one."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from langfuse_export.catalog.errors import CatalogError
from langfuse_export.catalog.load import Catalog, Sources, load_catalog, read_model, resolve
from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_export.formats import Compression, FileFormat
from langfuse_export.tables import TABLES, Hash, Replace
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency
from langfuse_worker.settings import Settings

DESTINATION = {
    "url": "s3://llm-archive/langfuse/",
    "endpoint": "http://127.0.0.1:9000",
    "region": "eu-central-1",
    "access_key_id": "${ARCHIVE_KEY_ID}",
    "secret_access_key": "${ARCHIVE_SECRET}",
}
SERVER = {"transfer": "server", "named_collection": "langfuse_archive"}
PROJECT = {"id": "support-bot", "destination": "archive", "start": "2026-06-01"}
NOW = datetime(2026, 7, 1, 12, 34, 56, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_KEY_ID", "the-key")
    monkeypatch.setenv("ARCHIVE_SECRET", "hunter2")


def _write(document: object) -> Path:
    path = Path("exports.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


def _catalog(*projects: dict[str, Any], first_rows: Mapping[str, datetime] | None = None) -> Catalog:
    path = _write({"destinations": {"archive": DESTINATION}, "projects": list(projects)})
    return resolve(Sources(read_yaml(path), first_rows=first_rows or {}), Settings(), NOW)


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


@pytest.mark.parametrize(
    ("project", "message"),
    [
        ({"tables": ["tracez"]}, "projects[0].tables[0]='tracez'"),
        ({"frequency": "monthly"}, "'every_20_minutes', 'hourly', 'daily' or 'weekly'"),
        ({"format": "avro"}, "'parquet', 'jsonl', 'csv' or 'json'"),
        ({"destination": "elsewhere"}, "'elsewhere'; there are archive"),
        ({"tables": ["traces", "traces"]}, "names a table twice"),
        ({"compression": "gzip"}, "compression: gzip is none of parquet, which has snappy, zstd"),
        ({"format": "csv", "compression": "snappy"}, "none of csv, which has none, gzip, zstd"),
        ({"id": "a/b"}, "must not contain '/'"),
        ({"owners": ["search"]}, "neither a mail address nor team: and a name"),
        ({"intervall": 5}, "projects[0].intervall"),
        ({"start": "tomorrow"}, "projects[0].start"),
        ({"columns": {"traces": ["nmae"]}}, "traces has no column 'nmae'"),
        ({"field_groups": ["everything"]}, "field_groups: 'everything' is none of basic, core"),
        ({"columns": {"scores": "most"}}, "columns.scores"),
        ({"where": {"level": ["error"]}}, "'DEBUG', 'DEFAULT', 'WARNING' or 'ERROR'"),
        ({"where": {"type": ["generation"]}}, "projects[0].where.type[0]='generation'"),
        ({"where": {"tags": []}}, "projects[0].where.tags=[]"),
        ({"where": {"country": ["DE"]}}, "projects[0].where.country"),
        ({"mask": {"usr_id": "hash"}}, "mask: no exported table has a column 'usr_id'"),
        ({"mask": {"id": "drop"}}, "mask: id cannot be dropped: traces needs it; hash it instead"),
        ({"mask": {"value": "hash"}}, "mask: value of scores is Float64; it can only be dropped"),
        ({"mask": {"input": {"replace": "(?=x)"}}}, "'(?=x)' is no RE2 pattern: invalid perl operator"),
        ({"mask": {"input": "encrypt"}}, "projects[0].mask.input.word='encrypt'"),
        ({"mask": {"input": {"replace": "x", "with": r"\1"}}}, "has \\1, but 'x' has 0 groups"),
        ({"mask": {"input": "hash"}}, "hash needs LANGFUSE_BLOB_STORAGE_EXPORT_MASK_KEY, which is not set"),
        (
            {"where": {"type": ["AGENT"]}, "tables": ["traces", "scores"]},
            "where: type is of observations, events, none of which is in tables",
        ),
        (
            {"schedule": {"cron": "6:30"}},
            "projects[0].schedule.cron: '6:30' is no cron line; it has five fields",
        ),
        ({"schedule": {"cron": "0 0 2 * * *"}}, "'0 0 2 * * *' is no cron line"),
        ({"schedule": {"cron": "*/90 * * * *"}}, "'*/90 * * * *' has a step beyond its field's range"),
        ({"schedule": {"cron": "0 0 31 4,6 *"}}, "'0 0 31 4,6 *' never ticks"),
        (
            {"schedule": {"cron": "0 2 * * *", "timezone": "europe/berln"}},
            "projects[0].schedule.timezone: 'europe/berln' is no time zone of IANA, such as 'Europe/Berlin'",
        ),
        ({"schedule": {"cron": "0 2 * * *", "timezone": "../UTC"}}, "'../UTC' is no time zone"),
        ({"schedule": {"timezone": "Europe/Berlin"}}, "projects[0].schedule.cron: Field required"),
        (
            {"prices": True, "tables": ["traces", "scores"]},
            "prices: true adds no column: needs observations or events in tables",
        ),
        ({"prices": True, "field_groups": ["core", "io"]}, "the group model in field_groups"),
        ({"prices": True}, "prices: true needs DATABASE_URL, which is not set"),
        ({"columns": {"events": ["total_price"]}}, "events has 'total_price' with `prices: true` only"),
        ({"layout": "spark"}, "projects[0].layout='spark'"),
        ({"layout": "hive", "key": "x"}, "key: 'x' stands beside layout: hive; leave one of them out"),
        (
            {"key": "{table}/{end:%Y%m%d%H}.{ext}"},
            "projects[0]: key: '{table}/{end:%Y%m%d%H}.{ext}' lacks {project}",
        ),
        ({"limits": {"max_threads": 11}}, "limits.max_threads: 11 raises the deployment's 10"),
        ({"limits": {"priority": 1}}, "limits.priority: 1 raises the deployment's 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_project_is_one_line_that_names_the_place(project: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError) as error:
        _catalog({**PROJECT, **project})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ({"url": "ftp://archive/"}, "must start with file://, s3://, az://, gs://"),
        ({"url": "s3://archive"}, "must end with '/'"),
        ({"url": "file://relative/"}, "must be absolute"),
        ({"url": "s3:///"}, "names no bucket"),
        ({"endpoint": "127.0.0.1:9000"}, "destinations.archive.endpoint"),
        ({"part_bytes": 1000}, "destinations.archive.part_bytes=1000"),
        ({"secret_access_key": ["hunter2"]}, "destinations.archive.secret_access_key"),
        ({"account_key": "hunter2"}, "account_key: goes with az://, not with s3://"),
        ({"secret_access_key": None}, "access_key_id: needs secret_access_key beside it"),
        ({"external_id": "x"}, "external_id: needs assume_role_arn beside it"),
        ({"assume_role_arn": "admin"}, "destinations.archive.assume_role_arn='admin'"),
        ({"transfer": "server"}, "transfer: server needs a named_collection"),
        ({"named_collection": "archive"}, "named_collection: goes with transfer: server"),
        ({**SERVER, "named_collection": "a, url='x'"}, "archive.named_collection=\"a, url='x'\""),
        ({**SERVER, "storage_class": "GLACIER"}, "storage_class: cannot be set with transfer: server"),
        ({**SERVER, "url": "s3://archive/{a}/"}, "letters, digits and . _ - / alone, not '{a}/'"),
        ({"access_key_id": "${NOT_SET}"}, "the environment variable NOT_SET is not set"),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_a_wrong_destination_is_one_line_that_names_the_place(
    destination: dict[str, Any], message: str
) -> None:
    path = _write({"destinations": {"archive": {**DESTINATION, **destination}}, "projects": [PROJECT]})
    with pytest.raises(CatalogError) as error:
        read_yaml(path)
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ({"url": "az://c/"}, "account_name: az:// needs the name of the storage account"),
        ({"url": "az://c/", "account_name": "evil.com/"}, "archive.account_name='evil.com/'"),
        (
            {"url": "az://c/", "account_name": "abc", "account_key": "hunter2", "sas_token": "hunter2"},
            "sas_token: cannot be used together with account_key",
        ),
        ({"url": "az://c/", "account_name": "abc", "account_key": ["hunter2"]}, "archive.account_key"),
        ({"url": "az://c/", "access_key_id": "abc"}, "access_key_id: goes with s3://, not with az://"),
        ({"url": "gs://b/", "sas_token": "hunter2"}, "sas_token: goes with az://, not with gs://"),
        ({"url": "gs://b/", **SERVER}, "transfer: server goes with s3:// and az://, not with gs://"),
        ({"url": "file:///d/", "part_bytes": 5 << 20}, "part_bytes: goes with s3:// and az:// and gs://"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_keys_of_another_store_are_refused_by_name(destination: dict[str, Any], message: str) -> None:
    path = _write({"destinations": {"archive": destination}, "projects": [PROJECT]})
    with pytest.raises(CatalogError) as error:
        read_yaml(path)
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "", "- a list", "\tprojects: []", "destinations: {}\nprojects: []"])
def test_a_file_that_is_no_catalog_is_named(text: str) -> None:
    Path("exports.yaml").write_text(text)
    with pytest.raises(CatalogError, match=r"exports\.yaml") as error:
        read_yaml(Path("exports.yaml"))
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_EXPORT_CONFIG", "nowhere.yaml")
    with pytest.raises(CatalogError, match=r"LANGFUSE_EXPORT_CONFIG=nowhere.yaml: No such file"):
        load_catalog(Settings())


def test_a_server_without_a_catalog_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "http://clickhouse:8123")
    with pytest.raises(CatalogError, match="LANGFUSE_EXPORT_CONFIG is not set"):
        read_model(Settings())


def test_a_project_listed_twice_is_refused() -> None:
    with pytest.raises(CatalogError, match="'support-bot' is listed twice"):
        _catalog(PROJECT, PROJECT)


def test_a_star_stands_for_every_project_that_is_not_listed() -> None:
    march = datetime(2026, 3, 3, 3, 33, tzinfo=UTC)
    found = {"a": march, "b": march, "support-bot": march}

    catalog = _catalog(
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

    catalog = _catalog({"id": "*", "destination": "archive"}, first_rows=found)

    assert [project.project_id for project in catalog.projects] == ["p2"]


def test_a_schedule_is_a_cron_line_by_the_clock_of_a_zone_utc_by_default() -> None:
    schedules = [{"cron": "30  6 * * 1-5", "timezone": "Europe/Berlin"}, {"cron": "0 2 * * *"}, None]
    projects = [{**PROJECT, "id": f"p{n}", "schedule": schedule} for n, schedule in enumerate(schedules)]

    timings = [project.timing for project in _catalog(*projects).projects]

    assert timings == [Timing("30 6 * * 1-5", "Europe/Berlin"), Timing("0 2 * * *", "UTC"), None]


def test_a_project_without_rows_and_start_begins_now() -> None:
    [project] = _catalog({"id": "new", "destination": "archive"}).projects
    assert project.start == datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_limits_may_be_lowered() -> None:
    limits = {"max_threads": 2, "priority": 9, "max_memory_usage": 10**9, "max_execution_time_s": 60}
    [project] = _catalog({**PROJECT, "limits": limits}).projects
    assert vars(project.limits) == limits


def test_chosen_columns_and_groups_keep_the_order_and_the_keys() -> None:
    [project] = _catalog(
        {**PROJECT, "columns": {"traces": ["tags", "name"]}, "field_groups": ["usage"]}
    ).projects
    assert project.table("traces").column_names == ["id", "timestamp", "name", "project_id", "tags"]
    observations = project.table("observations").column_names
    assert observations[:3] == ["id", "trace_id", "project_id"]
    assert {"usage_details", "total_cost"} <= set(observations)
    assert "input" not in observations


def test_by_default_langfuses_tables_are_exported_as_they_are() -> None:
    [project] = _catalog(PROJECT).projects
    assert project.tables == tuple(TABLES.values())


def test_more_columns_more_scores_and_fewer_rows_are_chosen() -> None:
    where = {"environment": ["production"], "level": ["ERROR"]}
    [project] = _catalog(
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
    assert [project.encoding.codec for project in _catalog(*projects).projects] == ["snappy", "zstd"]

    monkeypatch.setenv("LANGFUSE_CLICKHOUSE_DATA_EXPORT_PARQUET_COMPRESSION", "zstd")
    assert [project.encoding.codec for project in _catalog(*projects).projects] == ["zstd", "zstd"]


def test_owners_are_those_that_a_project_names() -> None:
    usual, owned = _catalog(PROJECT, {**PROJECT, "id": "other", "owners": ["team:search"]}).projects

    assert (usual.owners, owned.owners) == (("team:data-platform",), ("team:search",))


def test_objects_without_rows_are_written_unless_a_project_skips_them() -> None:
    usual, skipping = _catalog(PROJECT, {**PROJECT, "id": "other", "skip_empty": True}).projects

    assert (usual.skip_empty, skipping.skip_empty) == (False, True)


def test_masks_are_those_of_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_EXPORT_MASK_KEY", "correct horse battery")
    email, phone = {"replace": r"\S+@\S+", "with": "[email]"}, {"replace": r"\+\d{6,}"}
    mask = {"user_id": "hash", "input": "drop", "output": email, "metadata": [email, phone]}
    [project] = _catalog({**PROJECT, "mask": mask}).projects
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
        [project] = _catalog({**PROJECT, **choice}).projects
        assert project.object_key(project.table("traces"), window) == traces
        assert project.manifest_key(window) == manifest
        assert project.staging_folder(project.table("traces"), window) == (
            "_incomplete/" + traces.removesuffix(".parquet")
        )


def test_projects_whose_templates_could_meet_are_refused() -> None:
    first = {**PROJECT, "id": "traces", "key": "a/{project}/{start:%Y-%m-%dT%H-%M-%S}{table}.{ext}"}
    second = {**PROJECT, "id": "a", "key": "{project}/{table}/{end:%Y-%m-%dT%H-%M-%S}traces.{ext}"}
    with pytest.raises(CatalogError, match=r"'a' with .* and 'traces' with .* could write the same object"):
        _catalog(first, second)
    assert len(_catalog(first, {**second, "id": "b"}).projects) == 2


def test_a_secret_is_in_no_representation() -> None:
    [project] = _catalog(PROJECT).projects
    assert "hunter2" not in repr(project)
    assert "hunter2" not in repr(read_yaml(Path("exports.yaml")))


def test_objects_pass_through_the_worker_unless_the_destination_says_otherwise() -> None:
    [by_worker] = _catalog(PROJECT).projects
    document = {"destinations": {"archive": DESTINATION | SERVER}, "projects": [PROJECT]}
    [by_server] = resolve(Sources(read_yaml(_write(document))), Settings(), NOW).projects

    assert (by_worker.named_collection, by_server.named_collection) == (None, "langfuse_archive")
    assert by_worker.destination == by_server.destination


def test_text_is_refused_where_clickhouse_writes_the_objects() -> None:
    document = {"destinations": {"archive": DESTINATION | SERVER}, "projects": [PROJECT | {"format": "csv"}]}
    with pytest.raises(CatalogError, match="'support-bot': format: csv cannot be written to 'archive'"):
        read_yaml(_write(document))
