"""Settings: where they come from, and what is said of wrong ones."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from langfuse_worker.clickhouse.client import Address
from langfuse_worker.postgres import Database
from langfuse_worker.role import WorkerRole
from langfuse_worker.settings import Settings, SettingsError, environment_names, load_settings


def test_the_environment_comes_before_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CLICKHOUSE_USER=file\nCLICKHOUSE_DB=file\n")
    monkeypatch.setenv("CLICKHOUSE_USER", "environment")

    settings = load_settings()

    assert (settings.clickhouse_user, settings.clickhouse_db) == ("environment", "file")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("LANGFUSE_WORKER_ROLE", "exports", "'all', 'ingestion' or 'export'"),
        ("CLICKHOUSE_URL", "clickhouse:8123", "http://host:8123"),
        ("CLICKHOUSE_EXPORT_URL", "tcp://clickhouse:9000", "http://host:8123"),
        ("LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS", "0", "greater than or equal to 1"),
        ("LANGFUSE_CLICKHOUSE_DATA_EXPORT_PRIORITY", "high", "valid integer"),
        ("LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_MEMORY_USAGE", "20GB", "valid integer"),
        ("LANGFUSE_BLOB_STORAGE_EXPORT_LAG_MS", "-1", "greater than or equal to 0"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "'otlp', 'console' or 'none'"),
        ("LANGFUSE_DATA_RETENTION", "p1=99999999", "project=days"),
        ("LANGFUSE_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_value_and_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as error:
        load_settings()

    message = str(error.value)
    assert message.startswith(f"{name}=")
    assert value in message
    assert allowed in message
    assert "\n" not in message


def test_a_password_in_a_wrong_url_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "ftp://user:hunter2@clickhouse:8123")
    with pytest.raises(SettingsError, match=r"user:\*\*\*@clickhouse") as error:
        load_settings()
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("password", ["hun/ter2", "hun#ter2", "/hunter2", "hun?ter2", "[hunter2"])
def test_a_password_that_is_not_percent_encoded_is_refused_and_masked(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", f"http://user:{password}@clickhouse:8123")

    with pytest.raises(SettingsError, match=r"CLICKHOUSE_URL='http://user:\*\*\*@clickhouse:8123'") as error:
        load_settings()

    assert "ter2" not in str(error.value)


@pytest.mark.parametrize("url", ["http://[::1:8123", "http://clickhouse:http", "chdb://", "chdb:///"])
def test_an_address_that_nothing_can_have_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", url)
    with pytest.raises(SettingsError, match="must be http://host:8123"):
        load_settings()


@pytest.mark.parametrize(
    "url", ["http://[::1]:8123", "https://u:p%2Fw@clickhouse/", "HTTP://u:p@w@clickhouse", "chdb:///home/a@b"]
)
def test_an_address_of_any_kind_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", url)
    assert load_settings().clickhouse_url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:hunter2@postgres:5432/langfuse?schema=public", "postgres:5432/langfuse"),
        ("postgresql://user:hun/ter2@postgres:5432/langfuse", "postgres:5432/langfuse"),
        ("postgresql://user:hun#ter2@postgres/langfuse", "postgres/langfuse"),
        ("postgresql://user:hun?ter2@postgres/langfuse", "postgres/langfuse"),
        ("postgresql://user:hunter2@/langfuse?host=/run/postgresql", "/run/postgresql/langfuse"),
        ("postgresql:///langfuse?host=/run/postgresql", "/run/postgresql/langfuse"),
    ],
)
def test_the_address_of_postgres_is_shown_without_credentials(url: str, shown: str) -> None:
    assert Database(SecretStr(url)).shown == shown


def test_the_password_is_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "hunter2")
    settings = load_settings()
    address = Address.of("http://user:hunter3@clickhouse:8123", settings)
    assert "hunter" not in repr(settings) + repr(address)
    assert address.password == "hunter3"


def test_exports_read_their_own_address_then_the_common_one_then_the_embedded_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_settings().export_source_url == f"chdb://{tmp_path}/.langfuse/clickhouse"
    monkeypatch.setenv("CLICKHOUSE_URL", "http://primary:8123")
    assert load_settings().export_source_url == "http://primary:8123"
    monkeypatch.setenv("CLICKHOUSE_EXPORT_URL", "https://replica:8443")
    assert load_settings().export_source_url == "https://replica:8443"
    assert not load_settings().embedded


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "")
    assert load_settings().clickhouse_url is None


def test_credentials_in_a_url_are_read_as_they_are_meant() -> None:
    address = Address.of("http://ex%40port:p%2Fw@clickhouse:8123", Settings())
    assert (address.user, address.password) == ("ex@port", "p/w")


@pytest.mark.parametrize(
    ("role", "export", "ingestion"),
    [("all", True, True), ("export", True, False), ("ingestion", False, True)],
)
def test_roles_decide_what_runs(role: str, export: bool, ingestion: bool) -> None:
    assert WorkerRole(role).runs_export is export
    assert WorkerRole(role).runs_ingestion is ingestion


def test_every_setting_has_a_variable_and_a_description() -> None:
    assert len(environment_names()) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
