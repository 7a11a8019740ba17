"""Prices of models in a deployment: who has them, and what happens while Postgres does not answer."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from langfuse_export.catalog import CatalogError, load_catalog
from langfuse_export.doctor.postgres import check_prices
from langfuse_export.doctor.subject import Subject
from langfuse_export.manifest import Manifest
from langfuse_export.tables import TABLES
from langfuse_worker.doctor import Finding, Status
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings
from tests.command import langfuse_worker
from tests.export.http.exporting import HOUR, PARQUET, read_rows
from tests.export.location import load_location
from tests.export.postgres.deployment import Deployment
from tests.export.project import write_catalog
from tests.rows import event, score

SETTING = "LANGFUSE_BLOB_STORAGE_EXPORT_PRICES"
COLUMNS = ["input_price", "output_price", "total_price", "prices_as_of"]
NOON = "2026-06-01T12"


def fill(deployment: Deployment) -> None:
    """A score, and an event of a model with a price."""
    deployment.postgres.add_model("m", input="0.03")
    deployment.insert("events_full", event("e", model_id="m"))
    deployment.insert("scores", score("s"))


def in_bucket(deployment: Deployment) -> Manifest:
    """The window's manifest, after a look at the prices in the object that it names."""
    key = deployment.project().manifest_key(HOUR)
    manifest = Manifest.model_validate_json(deployment.s3.read("exports", key))
    [file] = [file for file in manifest.files if file.table == "observations_v2"]
    [row] = read_rows(deployment.s3.read("exports", file.key), PARQUET)
    assert [row[name] for name in COLUMNS[:3]] == ["0.03", None, None]
    return manifest


def test_projects_of_postgres_have_prices_if_the_deployment_says_so(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "true")
    deployment.add()
    fill(deployment)

    assert deployment.run(NOON, NOON).success

    prices = {file.table: file.prices_as_of for file in in_bucket(deployment).files}
    assert prices["scores"] is None
    assert prices["observations_v2"] is not None


def test_without_the_setting_columns_of_postgres_projects_stay_as_they_are(deployment: Deployment) -> None:
    deployment.add()
    assert deployment.project().table("events").columns == TABLES["events"].columns


@pytest.mark.parametrize(
    ("columns", "has_prices"),
    [
        ({"export_tuning": {"skipEnrichment": True}}, False),
        ({"export_tuning": {"skipEnrichment": False}}, True),
        ({"export_field_groups": ["core", "usage"]}, False),
        ({"export_field_groups": ["core", "model"]}, True),
    ],
)
def test_what_leaves_prices_out_in_langfuse_leaves_them_out_here(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    columns: dict[str, Any],
    has_prices: bool,
) -> None:
    monkeypatch.setenv(SETTING, "true")
    deployment.add(**columns)
    with capture_logs() as logs:
        names = deployment.project().table("events").column_names
    assert (names[-4:] == COLUMNS) is has_prices
    assert bool(set(names) & set(COLUMNS)) is has_prices
    assert not [line for line in logs if line["event"] == "export_tuning_ignored"]


def test_an_exports_yaml_with_prices_needs_a_database(
    tmp_path: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_catalog(tmp_path, {"prices": True})
    monkeypatch.setenv("LANGFUSE_EXPORT_CONFIG", str(path))
    [project] = load_catalog(Settings()).projects
    for name in ("observations", "events"):
        assert project.table(name).column_names == [*TABLES[name].column_names, *COLUMNS]
    assert project.table("traces").columns == TABLES["traces"].columns

    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(CatalogError, match="'p1': prices: true needs DATABASE_URL, which is not set"):
        load_catalog(Settings())


def test_a_run_without_postgres_is_retried_and_writes_nothing_without_prices(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "true")
    deployment.add()
    fill(deployment)
    location, project = load_location(), deployment.project()

    with deployment.postgres.closed():
        result = deployment.run_loaded(location, project, NOON, NOON)

    assert not result.success
    kinds = [e.event_type_value for e in result.all_events]
    assert kinds.count("STEP_UP_FOR_RETRY") == 3
    assert [key for key in deployment.objects() if "/scores/" not in key] == []

    assert deployment.run_loaded(location, project, NOON, NOON).success
    assert in_bucket(deployment).tables == ["scores", "observations_v2"]


def test_check_knows_the_columns_of_prices(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "true")
    deployment.add()
    ended = langfuse_worker("export", "check", "--json", home=tmp_path / "home")
    assert ended.code == 0, ended.out


def doctor(deployment: Deployment) -> Finding:
    """What it says of prices."""
    [found] = check_prices(Subject(Settings()), Database(SecretStr(deployment.postgres.url)))
    return found


def test_the_doctor_names_rights_that_prices_lack(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.add()
    deployment.postgres.add_model("m", input="1")
    deployment.postgres.add_model("theirs", "p2", input="1")
    for table in ("models", "pricing_tiers", "prices"):
        with deployment.postgres.revoked(f"SELECT ON {table}"):
            monkeypatch.delenv(SETTING, raising=False)
            assert doctor(deployment).result == "no project exports them"
            monkeypatch.setenv(SETTING, "true")
            lacking = doctor(deployment)
        assert lacking.status is Status.PROBLEM
        assert f"permission denied for table {table}" in lacking.result
        assert "GRANT SELECT" in lacking.remedy
    found = doctor(deployment)
    assert (found.status, found.result) == (Status.OK, "can be read: 1 models of p1 have some")
