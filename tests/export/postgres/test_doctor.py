"""What the doctor says of Langfuse's Postgres."""

from pathlib import Path

import pytest

from langfuse_export.doctor import export_checks
from langfuse_export.doctor.postgres import check_owners, check_postgres, check_set_up_twice
from langfuse_export.doctor.subject import Subject
from langfuse_export.notify.owners import Owners
from langfuse_worker.doctor import Finding, Status
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings
from tests.export.postgres.deployment import Deployment
from tests.export.project import write_catalog
from tests.servers.notifications import MailServer


@pytest.fixture
def database(deployment: Deployment) -> Database:
    """As the worker reaches it."""
    url = Settings().database_url
    assert url is not None
    return Database(url)


def by_name(found: list[Finding]) -> dict[str, Finding]:
    """Findings by what they are about."""
    return {finding.what: finding for finding in found}


def test_a_postgres_that_serves_has_no_findings(database: Database) -> None:
    found = by_name(list(check_postgres(database)))
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert set(found) == {"postgres", "clock of postgres", "postgres: connections", "postgres: write-back"}
    assert {"postgres", "postgres: set up twice"} <= {check.name for check in export_checks(Settings())}


def test_rights_that_are_missing_for_the_write_back_are_named(
    deployment: Deployment, database: Database
) -> None:
    with deployment.postgres.revoked("UPDATE (last_error) ON blob_storage_integrations"):
        found = by_name(list(check_postgres(database)))["postgres: write-back"]
    assert found.status is Status.PROBLEM
    assert "last_error:" in found.result


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ("SELECT (email) ON users", "may not read users.email:"),
        ("SELECT (org_id) ON projects", "may not read projects.org_id:"),
        (
            "UPDATE (last_failure_notification_sent_at) ON blob_storage_integrations",
            "may not write last_failure_notification_sent_at:",
        ),
    ],
)
def test_rights_that_mail_to_owners_takes_are_named(
    deployment: Deployment, database: Database, right: str, said: str
) -> None:
    with deployment.postgres.revoked(right):
        [found] = check_owners(Owners(database))
    assert found.status is Status.WARNING
    assert found.result.startswith(said)
    assert "GRANT" in found.remedy


def test_owners_are_looked_at_where_they_get_mail(
    database: Database, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "postgres: owners" not in {check.name for check in export_checks(Settings())}
    monkeypatch.setenv("SMTP_CONNECTION_URL", mail_server.url)
    monkeypatch.setenv("EMAIL_FROM_ADDRESS", "langfuse@example.com")
    assert "postgres: owners" in {check.name for check in export_checks(Settings())}
    [found] = check_owners(Owners(database))
    assert found.status is Status.OK


def test_a_postgres_that_does_not_answer_is_a_problem(deployment: Deployment, database: Database) -> None:
    with deployment.postgres.closed():
        [found] = check_postgres(database)
    assert (found.what, found.status) == ("postgres", Status.PROBLEM)
    assert "DATABASE_URL" in found.remedy


@pytest.mark.parametrize("enabled", [True, False])
def test_a_project_of_exports_yaml_that_langfuse_exports_too_is_named(
    deployment: Deployment,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,
) -> None:
    deployment.add("p1", enabled=enabled)
    deployment.add("p2")
    monkeypatch.setenv("LANGFUSE_EXPORT_CONFIG", str(write_catalog(tmp_path)))

    [found] = check_set_up_twice(Subject(Settings()), database)

    assert found.status is (Status.WARNING if enabled else Status.OK)
    assert found.result.startswith("p1 is exported") is enabled
