"""Postgres beside exports.yaml, and how a change of either is seen."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from langfuse_export.catalog import Catalog, load_catalog
from langfuse_export.catalog.load import read_sources
from langfuse_worker.settings import Settings
from tests.export.postgres.deployment import settings_of
from tests.rows import insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.langfuse_postgres import LangfusePostgres, encrypted

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
AT = datetime(2026, 6, 3, 15, 47, 12, 345000)


def _yaml(*projects: dict[str, Any]) -> str:
    document = {"destinations": {"archive": {"url": "s3://archive/"}}, "projects": list(projects)}
    Path("exports.yaml").write_text(yaml.safe_dump(document))
    return "exports.yaml"


def _destinations(catalog: Catalog) -> dict[str, str]:
    return {project.project_id: project.destination.url for project in catalog.projects}


def test_both_catalogs_together_and_the_file_wins(
    langfuse: LangfusePostgres, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in ("both", "found", "postgres"):
        insert(clickhouse.execute, "traces", [{**trace("t", JUNE), "project_id": project}])
    config = _yaml({"id": "both", "destination": "archive"}, {"id": "*", "destination": "archive"})
    settings = settings_of(
        langfuse, monkeypatch, LANGFUSE_EXPORT_CONFIG=config, **clickhouse.environment_of_a_worker
    )
    langfuse.add("both")
    langfuse.add("postgres")

    with capture_logs() as logs:
        catalog = load_catalog(settings)

    assert _destinations(catalog) == {
        "both": "s3://archive/",
        "found": "s3://archive/",
        "postgres": "s3://exports/",
    }
    assert [p.project_id for p in catalog.projects if p.in_postgres] == ["postgres"]
    [line] = [line for line in logs if line["event"] == "catalog_project_in_both"]
    assert (line["projectId"], line["used"]) == ("both", "LANGFUSE_EXPORT_CONFIG")


@pytest.mark.parametrize(
    ("columns", "changes"),
    [
        ({"last_sync_at": AT, "next_sync_at": AT, "run_started_at": AT}, False),
        ({"last_error": "x", "last_error_at": AT, "export_tuning": {"exportStart": "2026-06-01"}}, False),
        ({"prefix": "elsewhere/"}, True),
        ({"enabled": False}, True),
        ({"secret_access_key": encrypted("another")}, True),
        ({"export_frequency": "daily"}, True),
        ({"export_tuning": {"partSizeBytes": 6 << 20}}, True),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_fingerprint_changes_with_the_configuration_and_not_with_the_cursor(
    langfuse: LangfusePostgres, settings: Settings, columns: dict[str, Any], changes: bool
) -> None:
    langfuse.add("p1", export_mode="FROM_TODAY")
    before = read_sources(settings).fingerprint
    assert read_sources(settings).fingerprint == before

    langfuse.change("p1", **columns)

    assert (read_sources(settings).fingerprint != before) is changes


def test_the_fingerprint_changes_with_the_file(
    langfuse: LangfusePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _yaml({"id": "a", "destination": "archive", "start": "2026-06-01"})
    settings = settings_of(langfuse, monkeypatch, LANGFUSE_EXPORT_CONFIG=config)
    before = read_sources(settings).fingerprint
    _yaml({"id": "b", "destination": "archive", "start": "2026-06-01"})
    assert read_sources(settings).fingerprint != before
