"""What is said of a wrong `exports.yaml`."""

from pathlib import Path
from typing import Any

import pytest

from langfuse_export.catalog.errors import CatalogError
from langfuse_export.catalog.load import load_catalog, read_model
from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_worker.settings import Settings
from tests.export.catalog.documents import DESTINATION, PROJECT, SERVER, catalog_of, write


@pytest.mark.parametrize(
    ("project", "message"),
    [
        ({"tables": ["tracez"]}, "projects[0].tables[0]='tracez'"),
        ({"frequency": "monthly"}, "'every_20_minutes', 'hourly', 'daily' or 'weekly'"),
        ({"format": "avro"}, "'parquet', 'jsonl', 'csv'"),
        ({"destination": "elsewhere"}, "'elsewhere'; there are archive"),
        ({"tables": ["traces", "traces"]}, "names a table twice"),
        ({"compression": "gzip"}, "compression: gzip is none of parquet, which has snappy, zstd"),
        ({"format": "csv", "compression": "snappy"}, "none of csv, which has none, gzip, zstd"),
        ({"id": "a/b"}, "must not contain '/'"),
        ({"owners": ["search"]}, "neither a mail address nor team: and a name"),
        ({"intervall": 5}, "projects[0].intervall"),
        ({"start": "tomorrow"}, "projects[0].start"),
        ({"start": 20260601}, "projects[0].start: is a number; a day is written as 2026-06-01"),
        ({"start": "0206-06-01"}, "projects[0].start: 0206-06-01 is not between 1970 and 2100"),
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
        catalog_of({**PROJECT, **project})
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
        ({"url": "s3:///langfuse/"}, "names no bucket"),
        ({"endpoint": "127.0.0.1:9000"}, "destinations.archive.endpoint"),
        ({"part_bytes": 1000}, "destinations.archive.part_bytes=1000"),
        ({"secret_access_key": ["hunter2"]}, "destinations.archive.secret_access_key"),
        ({"secret_acces_key": "hunter2"}, "destinations.archive.secret_acces_key: there is no such key"),
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
    path = write({"destinations": {"archive": {**DESTINATION, **destination}}, "projects": [PROJECT]})
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
    path = write({"destinations": {"archive": destination}, "projects": [PROJECT]})
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the keys destinations and projects"),
        ("[{secret_access_key: hunter2}]", "must have the keys destinations and projects"),
        ("{destinations: [{secret_access_key: hunter2}]}", "destinations: Input should be"),
        ("{destinations: {archive: [secret_access_key, hunter2]}}", "destinations.archive: Input should be"),
        (
            "a: {b: 1}\nc:\n  start: 2026-13-40",
            '2026-13-40: month must be in 1..12 in "exports.yaml", line 3',
        ),
        ("a: 1\nb: {c: 1,\n  c: hunter2}", "the key 'c' stands twice in \"exports.yaml\", line 3, column 3"),
        ("a: [1,\n", 'in "exports.yaml", line'),
        ("? [a, b]\n: 1", 'found unhashable key in "exports.yaml", line 1'),
        ("a: &a [*a]", "contains itself"),
    ],
)
def test_what_is_wrong_with_the_file_is_named_without_its_contents(text: str, message: str) -> None:
    Path("exports.yaml").write_text(text)
    with pytest.raises(CatalogError) as error:
        read_yaml(Path("exports.yaml"))
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)


def test_what_is_merged_from_an_anchor_may_be_said_anew() -> None:
    Path("exports.yaml").write_text(
        "destinations: {d: {url: file:///d/}}\n"
        "projects:\n"
        "- &first {id: a, destination: d, format: csv, start: 2026-06-01}\n"
        "- &second {<<: *first, id: b, format: json}\n"
        "- {<<: *second, id: c, frequency: daily}\n"
    )
    found = [(project.id, project.format) for project in read_yaml(Path("exports.yaml")).projects]
    assert found == [("a", "csv"), ("b", "json"), ("c", "json")]


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
        catalog_of(PROJECT, PROJECT)


def test_projects_whose_templates_could_meet_are_refused() -> None:
    first = {**PROJECT, "id": "traces", "key": "a/{project}/{start:%Y-%m-%dT%H-%M-%S}{table}.{ext}"}
    second = {**PROJECT, "id": "a", "key": "{project}/{table}/{end:%Y-%m-%dT%H-%M-%S}traces.{ext}"}
    with pytest.raises(CatalogError, match=r"'a' with .* and 'traces' with .* could write the same object"):
        catalog_of(first, second)
    assert len(catalog_of(first, {**second, "id": "b"}).projects) == 2


def test_text_is_refused_where_clickhouse_writes_the_objects() -> None:
    document = {"destinations": {"archive": DESTINATION | SERVER}, "projects": [PROJECT | {"format": "csv"}]}
    with pytest.raises(CatalogError, match="'support-bot': format: csv cannot be written to 'archive'"):
        read_yaml(write(document))
