"""Rows of Langfuse's Postgres as exports: what they mean, and what is said of those that cannot be one."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from langfuse_export.catalog import CatalogError, load_catalog
from langfuse_export.formats import Compression, Encoding, FileFormat
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Frequency
from langfuse_worker.blobstore import PART_BYTES
from langfuse_worker.settings import Settings
from tests.export.postgres.deployment import settings_of
from tests.rows import event, insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.langfuse_postgres import ENCRYPTION_KEY, LangfusePostgres, encrypted

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
AT = datetime(2026, 6, 3, 15, 47, 12, 345000)
ALL = ["traces", "observations", "scores", "events"]


def _export(server: LangfusePostgres, settings: Settings, **columns: Any) -> ProjectExport:
    server.add("p1", **{"export_mode": "FROM_CUSTOM_DATE", "export_start_date": JUNE, **columns})
    [project] = load_catalog(settings).projects
    return project


@pytest.mark.parametrize(
    ("of_project", "of_deployment", "days"),
    [(None, "", None), (0, "", None), (5, "", 5), (5, "p1=3,*=9", 3), (None, "*=9", 9)],
)
def test_the_shorter_retention_counts(
    langfuse: LangfusePostgres,
    monkeypatch: pytest.MonkeyPatch,
    of_project: int | None,
    of_deployment: str,
    days: int | None,
) -> None:
    settings = settings_of(langfuse, monkeypatch, LANGFUSE_DATA_RETENTION=of_deployment)
    langfuse.add("p1", export_mode="FROM_TODAY")
    langfuse.execute("UPDATE projects SET retention_days = %(days)s", {"days": of_project})

    assert load_catalog(settings).project("p1").retention_days == days


def test_without_the_right_to_read_retention_projects_are_exported_and_the_log_names_the_grant_once(
    langfuse: LangfusePostgres, settings: Settings
) -> None:
    with langfuse.revoked("SELECT (retention_days) ON projects"), capture_logs() as logs:
        assert _export(langfuse, settings).retention_days is None
        assert load_catalog(settings).project("p1").retention_days is None

    assert [line["grant"] for line in logs if line["event"] == "retention_unknown"] == [
        "GRANT SELECT (retention_days) ON projects"
    ]


def _error(server: LangfusePostgres, settings: Settings, **columns: Any) -> str:
    server.add("p1", **{"export_mode": "FROM_TODAY", **columns})
    catalog = load_catalog(settings)
    assert catalog.projects == ()
    [rejection] = catalog.rejections
    assert rejection.project_id == "p1"
    assert "\n" not in rejection.error
    return rejection.error


def test_a_row_as_langfuse_saves_it(langfuse: LangfusePostgres, settings: Settings) -> None:
    export = _export(
        langfuse,
        settings,
        prefix="langfuse/",
        endpoint="https://minio.example.com",
        region="",
        bucket_name="b.c",
    )

    assert (export.project_id, export.name, export.enabled) == ("p1", "The p1", True)
    assert export.frequency is Frequency.HOURLY
    assert export.encoding == Encoding(FileFormat.PARQUET)
    assert [table.name for table in export.tables] == ["scores", "events"]
    store = export.destination
    assert (store.url, store.endpoint, store.region) == (
        "s3://b.c/langfuse/",
        "https://minio.example.com",
        "auto",
    )
    assert (store.access_key_id, store.secret_access_key) == ("key", "secret")
    assert store.untrusted_endpoint
    assert "secret" not in repr(export).replace("secret_access_key", "")


@pytest.mark.parametrize("frequency", list(Frequency))
def test_every_frequency(langfuse: LangfusePostgres, settings: Settings, frequency: Frequency) -> None:
    assert _export(langfuse, settings, export_frequency=frequency.value).frequency is frequency


@pytest.mark.parametrize(
    ("file_type", "compressed", "encoding"),
    [
        ("PARQUET", True, Encoding(FileFormat.PARQUET)),
        ("CSV", False, Encoding(FileFormat.CSV)),
        ("JSON", True, Encoding(FileFormat.JSON, Compression.GZIP)),
        ("JSONL", True, Encoding(FileFormat.JSONL, Compression.GZIP)),
    ],
)
def test_every_file_type(
    langfuse: LangfusePostgres, settings: Settings, file_type: str, compressed: bool, encoding: Encoding
) -> None:
    assert _export(langfuse, settings, file_type=file_type, compressed=compressed).encoding == encoding


def test_parquet_is_compressed_as_the_deployment_says(langfuse: LangfusePostgres, settings: Settings) -> None:
    settings = settings.model_copy(update={"export_parquet_compression": "zstd"})

    assert _export(langfuse, settings, file_type="PARQUET").encoding.codec == "zstd"


@pytest.mark.parametrize(
    ("source", "tables"),
    [
        ("TRACES_OBSERVATIONS", ALL[:3]),
        ("TRACES_OBSERVATIONS_EVENTS", ALL),
        ("EVENTS", ["scores", "events"]),
    ],
)
def test_every_export_source(
    langfuse: LangfusePostgres, settings: Settings, source: str, tables: list[str]
) -> None:
    export = _export(langfuse, settings, export_source=source)
    assert [table.name for table in export.tables] == tables


def test_some_projects_export_traces_alone(
    langfuse: LangfusePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "LANGFUSE_BLOB_STORAGE_EXPORT_TRACE_ONLY_PROJECT_IDS"
    settings = settings_of(langfuse, monkeypatch, **{name: "other, p1"})
    assert [table.name for table in _export(langfuse, settings).tables] == ["traces"]


def test_field_groups_choose_columns_and_unknown_ones_are_named(
    langfuse: LangfusePostgres, settings: Settings
) -> None:
    with capture_logs() as logs:
        export = _export(langfuse, settings, export_field_groups=["core", "usage", "aura"])
    names = export.table("events").column_names
    assert {"id", "total_cost"} <= set(names)
    assert "input" not in names
    assert [line["groups"] for line in logs if line["event"] == "export_field_groups_unknown"] == [["aura"]]


@pytest.mark.parametrize(
    ("tuning", "part_bytes"),
    [
        (None, PART_BYTES),
        ({"partSizeBytes": 200 << 20}, 200 << 20),
        ({"partSizeBytes": 1}, 5 << 20),
        ({"partSizeBytes": 1 << 50}, 5 << 30),
        ({"partSizeBytes": "large"}, PART_BYTES),
        ("[1, 2]", PART_BYTES),
    ],
)
def test_part_sizes_are_taken_within_their_bounds(
    langfuse: LangfusePostgres, settings: Settings, tuning: Any, part_bytes: int
) -> None:
    assert _export(langfuse, settings, export_tuning=tuning).destination.part_bytes == part_bytes


def test_tuning_that_means_nothing_here_is_named(langfuse: LangfusePostgres, settings: Settings) -> None:
    with capture_logs() as logs:
        _export(langfuse, settings, export_tuning={"gzipLevel": 9, "maxConcurrentParts": 2})
    [line] = [line for line in logs if line["event"] == "export_tuning_ignored"]
    assert line["keys"] == ["gzipLevel", "maxConcurrentParts"]


def test_azure(langfuse: LangfusePostgres, settings: Settings) -> None:
    export = _export(
        langfuse,
        settings,
        type="AZURE_BLOB_STORAGE",
        endpoint="https://acct.blob.core.windows.net",
        access_key_id="acct",
        prefix="a b/",
    )
    store = export.destination
    assert (store.url, store.endpoint) == ("az://exports/a%20b/", "https://acct.blob.core.windows.net")
    assert (store.account_name, store.account_key) == ("acct", "secret")


@pytest.mark.parametrize("secret", [None, ""])
def test_without_keys_the_ambient_credentials_are_used(
    langfuse: LangfusePostgres, settings: Settings, secret: str | None
) -> None:
    export = _export(langfuse, settings, type="S3", access_key_id=secret, secret_access_key=secret)
    assert (export.destination.access_key_id, export.destination.secret_access_key) == (None, None)


def test_a_secret_from_before_langfuse_encrypted_them(langfuse: LangfusePostgres, settings: Settings) -> None:
    export = _export(langfuse, settings, secret_access_key="wJalr/XUtnFEMI")
    assert export.destination.secret_access_key == "wJalr/XUtnFEMI"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"export_frequency": "monthly"},
            "export_frequency 'monthly' must be one of every_20_minutes, hourly",
        ),
        ({"secret_access_key": encrypted("secret", "00" * 32)}, "ENCRYPTION_KEY is not the key"),
        ({"secret_access_key": "0a:0b:"}, "secret_access_key is damaged"),
        ({"bucket_name": "a/b"}, "bucket_name 'a/b'"),
        ({"prefix": "/langfuse/"}, "prefix '/langfuse/' has an empty folder"),
        ({"prefix": "a/../b/"}, "prefix 'a/../b/'"),
        ({"type": "AZURE_BLOB_STORAGE"}, "AZURE_BLOB_STORAGE needs endpoint"),
        ({"access_key_id": None}, "S3_COMPATIBLE needs access_key_id and secret_access_key"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_row_that_cannot_be_exported_says_why(
    langfuse: LangfusePostgres, settings: Settings, columns: dict[str, Any], message: str
) -> None:
    assert message in _error(langfuse, settings, **columns)


def test_without_the_key_no_secret_is_read(
    langfuse: LangfusePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(langfuse, monkeypatch, ENCRYPTION_KEY="")
    assert "ENCRYPTION_KEY is not set" in _error(langfuse, settings)


@pytest.mark.parametrize(
    "wrong", [{"secret_access_key": encrypted("s", "00" * 32)}, {"export_frequency": "monthly"}]
)
def test_a_bad_row_that_is_switched_off_bothers_nobody(
    langfuse: LangfusePostgres, settings: Settings, wrong: dict[str, str]
) -> None:
    langfuse.add("p1", enabled=False, export_mode="FROM_TODAY", **wrong)
    catalog = load_catalog(settings)
    assert (catalog.projects, catalog.rejections) == ((), ())


def test_a_bad_row_takes_no_other_project_away(langfuse: LangfusePostgres, settings: Settings) -> None:
    langfuse.add("bad", export_frequency="monthly")
    langfuse.add("worse", secret_access_key=encrypted("s", "00" * 32), export_mode="FROM_TODAY")
    assert _export(langfuse, settings).project_id == "p1"


def test_deleted_projects_are_not_exported_and_disabled_ones_are_paused(
    langfuse: LangfusePostgres, settings: Settings
) -> None:
    langfuse.add("gone", export_mode="FROM_TODAY")
    langfuse.execute("UPDATE projects SET deleted_at = now() WHERE id = 'gone'")
    export = _export(langfuse, settings, enabled=False)
    assert (export.project_id, export.enabled) == ("p1", False)


@pytest.mark.parametrize(
    ("columns", "start"),
    [
        ({"last_sync_at": AT, "export_mode": "FULL_HISTORY"}, datetime(2026, 6, 3, 15, tzinfo=UTC)),
        ({"last_sync_at": AT, "export_frequency": "daily"}, datetime(2026, 6, 3, tzinfo=UTC)),
        ({"last_sync_at": AT, "export_frequency": "weekly"}, JUNE),
        (
            {"last_sync_at": AT, "export_frequency": "every_20_minutes"},
            datetime(2026, 6, 3, 15, 40, tzinfo=UTC),
        ),
        ({"export_start_date": AT}, datetime(2026, 6, 3, 15, tzinfo=UTC)),
        ({"export_mode": "FROM_TODAY", "export_start_date": AT}, datetime(2026, 6, 3, 15, tzinfo=UTC)),
        ({"export_start_date": None, "created_at": AT}, datetime(2026, 6, 3, 15, tzinfo=UTC)),
    ],
)
def test_a_project_begins_where_langfuse_stopped_or_its_mode_says(
    langfuse: LangfusePostgres, settings: Settings, columns: dict[str, Any], start: datetime
) -> None:
    export = _export(langfuse, settings, **columns)
    assert (export.start, export.catch_up_from) == (start, start)


def test_the_first_window_stays_while_the_export_goes_on(
    langfuse: LangfusePostgres, settings: Settings
) -> None:
    export = _export(langfuse, settings, last_sync_at=AT, export_tuning={"exportStart": JUNE.isoformat()})
    assert export.start == JUNE
    assert export.catch_up_from == datetime(2026, 6, 3, 15, tzinfo=UTC)


@pytest.mark.defect("D8")
def test_full_history_begins_with_the_first_row_of_any_table(
    langfuse: LangfusePostgres, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Langfuse it does not look at events, and begins in 1970 if there is nothing else."""
    insert(clickhouse.execute, "events_full", [event("e", JUNE + timedelta(minutes=90))])
    insert(clickhouse.execute, "traces", [trace("t", JUNE + timedelta(days=9))])
    settings = settings_of(langfuse, monkeypatch, **clickhouse.environment_of_a_worker)
    langfuse.add("empty", export_mode="FULL_HISTORY")
    langfuse.add("p1", export_mode="FULL_HISTORY", export_source="TRACES_OBSERVATIONS_EVENTS")

    this_hour = Frequency.HOURLY.floor(datetime.now(UTC))

    starts = {project.project_id: project.start for project in load_catalog(settings).projects}

    assert starts["p1"] == JUNE + timedelta(hours=1)
    assert this_hour <= starts["empty"] <= datetime.now(UTC)


@pytest.mark.defect("D13")
def test_when_clickhouse_is_down_only_projects_without_a_known_start_wait(
    langfuse: LangfusePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Langfuse a failure to find the first row is seen by nobody."""
    settings = settings_of(langfuse, monkeypatch, CLICKHOUSE_URL="http://127.0.0.1:1")
    langfuse.add("new", export_mode="FULL_HISTORY")
    langfuse.add("p1", last_sync_at=AT)

    catalog = load_catalog(settings)

    assert [project.project_id for project in catalog.projects] == ["p1"]
    [rejection] = catalog.rejections
    assert rejection.project_id == "new"
    assert "127.0.0.1:1" in rejection.error


def test_a_source_that_is_not_written_any_more_is_only_warned_of(
    langfuse: LangfusePostgres, settings: Settings
) -> None:
    with capture_logs() as logs:
        assert _export(langfuse, settings, export_source="TRACES_OBSERVATIONS").enabled
    [line] = [line for line in logs if line["event"] == "export_source_not_written"]
    assert (line["exportSource"], line["writeMode"]) == ("TRACES_OBSERVATIONS", "events_only")


def test_postgres_that_is_down_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://export:hunter2@127.0.0.1:1/langfuse?schema=public")
    with pytest.raises(CatalogError, match=r"DATABASE_URL: Postgres at 127\.0\.0\.1:1/langfuse") as error:
        load_catalog(Settings())
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_key_of_the_wrong_length_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCRYPTION_KEY", ENCRYPTION_KEY[:-2])
    with pytest.raises(ValueError, match="64 hex digits") as error:
        Settings()
    assert json.dumps(ENCRYPTION_KEY[:-2]) not in str(error.value)


def test_of_two_rows_whose_prefixes_could_meet_one_is_left_out(
    langfuse: LangfusePostgres, settings: Settings
) -> None:
    langfuse.add("yz", prefix="x", export_mode="FROM_TODAY")
    langfuse.add("z", prefix="xy", export_mode="FROM_TODAY")

    catalog = load_catalog(settings)

    assert [project.project_id for project in catalog.projects] == ["yz"]
    [rejection] = catalog.rejections
    assert rejection.project_id == "z"
    assert "end the prefix with a slash" in rejection.error
