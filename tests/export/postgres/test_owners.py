"""Mail to the owners that Langfuse's Postgres knows: to whom, of what, and once with Langfuse."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from langfuse_export.catalog import load_catalog
from langfuse_export.health.behind import Behind
from langfuse_export.health.policy import HealthPolicy
from langfuse_export.health.state import Failure, Health
from langfuse_export.health.store import HealthStore
from langfuse_export.notify.notifier import Notifier, tell_people
from langfuse_export.notify.owners import Owners
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings
from langfuse_worker.store_faults import AccessFault
from tests.command import langfuse_worker
from tests.export.postgres.deployment import Deployment
from tests.servers.notifications import MailServer

PREFIX = "LANGFUSE_BLOB_STORAGE_FAILURE_NOTIFICATION_"
POLICY = HealthPolicy()
NOW = datetime(2026, 6, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPS = "ops@example.com"
FAILURE = Failure(
    windows=("2026-06-02T00",), reason="destination_access", error="s3://exports/: no", blocks=True
)


def _failing(fault: AccessFault | None = None) -> Health:
    """A project that people are to be told of: failing, or stopped if the destination is to blame."""
    failure, health = FAILURE.model_copy(update={"fault": fault}), Health()
    for minute in (20, 15, 1):
        health = health.failed(failure, POLICY, NOW - timedelta(minutes=minute))
    return health


@dataclass
class Mailing:
    """A deployment with a mail server, and what its sensor does once a minute."""

    deployment: Deployment
    server: MailServer
    home: Path
    notifier: Notifier

    def fail(self, *projects: str, fault: AccessFault | None = None) -> None:
        """Let projects fail for as long as people are to be told."""
        for project in projects:
            HealthStore(self.deployment.instance).change(project, lambda _: _failing(fault))

    def tell(self, now: datetime = NOW) -> None:
        """One tick of the sensor that tells people."""
        projects = {project.project_id: project for project in load_catalog(Settings()).projects}
        tell_people(HealthStore(self.deployment.instance), self.notifier, projects, POLICY, now)

    @property
    def inbox(self) -> dict[str, str]:
        """By recipients of a mail, what it says; fails if two went to the same."""
        found: dict[str, str] = {}
        for recipients, mail in zip(self.server.recipients, self.server.mails, strict=True):
            name = " ".join(sorted(recipients))
            assert name not in found
            assert mail["To"] == ", ".join(sorted(recipients))
            found[name] = f"{mail['Subject']}\n{mail.get_payload(decode=True)!r}"
        return found

    @property
    def sent_at(self) -> datetime | None:
        """The column that says when p1's owners were told of a failure."""
        return self.deployment.postgres.row("p1")["last_failure_notification_sent_at"]


@pytest.fixture
def mailing(
    deployment: Deployment, mail_server: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Mailing:
    """Project p1 with an owner, another with none of its own; mail goes to them and to an operator."""
    monkeypatch.setenv("SMTP_CONNECTION_URL", mail_server.url)
    monkeypatch.setenv("EMAIL_FROM_ADDRESS", "langfuse@example.com")
    monkeypatch.setenv(PREFIX + "EMAIL_TO", OPS)
    deployment.add("p1")
    deployment.add("p2", org="other")
    deployment.postgres.add_person("owner@p1.example", p1="OWNER")
    deployment.postgres.add_person("admin@other.example", "ADMIN", "other")
    return Mailing(deployment, mail_server, tmp_path / "home", Notifier.from_settings(Settings()))


def test_owners_hear_of_their_own_projects_and_of_nobody_else(mailing: Mailing) -> None:
    people = mailing.deployment.postgres.add_person
    people("admin@p1.example", "VIEWER", p1="ADMIN")
    people("member@p1.example", p1="MEMBER")
    people("owner@org.example", "OWNER")  # p1 has owners of its own
    people("owner@other.example", "OWNER", "other")
    people("member@other.example", "MEMBER", "other")
    mailing.fail("p1", "p2")

    mailing.tell()

    inbox = mailing.inbox
    assert set(inbox) == {
        OPS,
        "admin@p1.example owner@p1.example",
        "admin@other.example owner@other.example",
    }
    first, second = (
        inbox["admin@p1.example owner@p1.example"],
        inbox["admin@other.example owner@other.example"],
    )
    assert first.startswith("Langfuse export of The p1 fails")
    assert "under Integrations, Blob Storage" in first
    assert "p2" not in first
    assert second.startswith("Langfuse export of The p2 fails")
    assert "p1" not in second
    assert inbox[OPS].startswith("Langfuse exports: 2 projects changed")

    mailing.tell(NOW + HOUR)
    assert len(mailing.server.mails) == 3


def test_who_owns_two_projects_gets_one_mail_and_their_other_owners_see_nothing_of_it(
    mailing: Mailing,
) -> None:
    mailing.deployment.add("p3")
    mailing.deployment.postgres.add_person("both@example.com", p1="ADMIN", p3="OWNER")
    mailing.deployment.postgres.add_person("third@example.com", p3="OWNER")
    mailing.fail("p1", "p3")

    mailing.tell()

    inbox = mailing.inbox
    assert set(inbox) == {OPS, "owner@p1.example", "both@example.com", "third@example.com"}
    assert "The p1" in inbox["both@example.com"]
    assert "The p3" in inbox["both@example.com"]
    assert "p3" not in inbox["owner@p1.example"]
    assert "p1" not in inbox["third@example.com"]


def test_what_is_no_address_gets_no_mail_and_spoils_none(mailing: Mailing) -> None:
    for email in (None, "no address", "a@example.com, b@example.com", "a@example.com\nBcc: b@example.com"):
        mailing.deployment.postgres.add_person(email, p1="OWNER")
    mailing.deployment.postgres.execute("UPDATE projects SET name = 'Two' || chr(10) || 'lines'")
    mailing.fail("p1")

    mailing.tell()

    assert set(mailing.inbox) == {OPS, "owner@p1.example"}
    assert mailing.inbox["owner@p1.example"].startswith("Langfuse export of Two lines fails")


@pytest.mark.parametrize("table", ["project_memberships", "organization_memberships", "users"])
def test_without_the_right_to_read_owners_the_others_hear_and_the_log_names_the_grant(
    mailing: Mailing, table: str
) -> None:
    column = "email" if table == "users" else "role"
    mailing.fail("p1")

    with mailing.deployment.postgres.revoked(f"SELECT ({column}) ON {table}"), capture_logs() as logs:
        mailing.tell()

    assert set(mailing.inbox) == {OPS}
    [line] = [line for line in logs if line["event"] == "owners_unknown"]
    assert f"permission denied for table {table}" in line["error"]
    assert f"{column})" in line["grant"]


def test_while_postgres_does_not_answer_the_others_hear(mailing: Mailing) -> None:
    mailing.fail("p1")
    projects = {project.project_id: project for project in load_catalog(Settings()).projects}

    with mailing.deployment.postgres.closed(), capture_logs() as logs:
        tell_people(HealthStore(mailing.deployment.instance), mailing.notifier, projects, POLICY, NOW)

    assert set(mailing.inbox) == {OPS}
    assert "owners_unknown" in {line["event"] for line in logs}


def test_of_a_failure_that_langfuse_has_mailed_owners_hear_again_after_the_cooldown(mailing: Mailing) -> None:
    by_langfuse = (NOW - HOUR).replace(tzinfo=None)
    mailing.deployment.postgres.change("p1", last_failure_notification_sent_at=by_langfuse)
    mailing.fail("p1")

    with capture_logs() as logs:
        mailing.tell()

    assert set(mailing.inbox) == {OPS}
    assert mailing.sent_at == by_langfuse
    assert "owners_told_by_langfuse" in {line["event"] for line in logs}

    mailing.server.mails.clear()
    mailing.server.recipients.clear()
    mailing.tell(NOW + timedelta(days=1))
    assert set(mailing.inbox) == {OPS, "owner@p1.example"}
    assert mailing.sent_at == (NOW + timedelta(days=1)).replace(tzinfo=None)

    mailing.tell(NOW + timedelta(days=2))
    assert len(mailing.server.mails) == 4
    assert mailing.sent_at == (NOW + timedelta(days=2)).replace(tzinfo=None)


def test_of_many_that_claim_a_failure_at_once_one_mails(mailing: Mailing) -> None:
    claimed: list[set[str]] = []
    owners = Owners(Database(SecretStr(mailing.deployment.postgres.url)))
    start = threading.Barrier(8)

    def claim() -> None:
        start.wait()
        claimed.append(owners.claim(["p1"], POLICY.cooldown, NOW))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(len, claimed)) == [0] * 7 + [1]


def test_that_a_project_has_stopped_is_told_whatever_was_told_before(mailing: Mailing) -> None:
    mailing.deployment.postgres.change("p1", last_failure_notification_sent_at=NOW - HOUR)
    mailing.fail("p1", fault=AccessFault.CREDENTIALS)

    mailing.tell()

    assert mailing.inbox["owner@p1.example"].startswith("Langfuse export of The p1 has stopped")
    assert mailing.sent_at == NOW.replace(tzinfo=None)


def test_what_is_no_failure_is_told_and_leaves_langfuses_cooldown_alone(mailing: Mailing) -> None:
    store = HealthStore(mailing.deployment.instance)
    store.change("p1", lambda _: Health(behind=Behind(since=NOW - 7 * HOUR)))

    mailing.tell()

    assert mailing.inbox["owner@p1.example"].startswith("Langfuse export of The p1 is behind")
    assert mailing.sent_at is None


def test_without_the_right_to_claim_owners_are_mailed_and_the_log_says_so_once(mailing: Mailing) -> None:
    right = "UPDATE (last_failure_notification_sent_at) ON blob_storage_integrations"
    with mailing.deployment.postgres.revoked(right), capture_logs() as logs:
        mailing.fail("p1")
        mailing.tell()
        mailing.tell(NOW + timedelta(days=1))

    assert sum(recipients == ["owner@p1.example"] for recipients in mailing.server.recipients) == 2
    [line] = [line for line in logs if line["event"] == "owners_not_claimed"]
    assert "last_failure_notification_sent_at" in line["grant"]


def test_resuming_a_project_makes_its_next_failure_worth_a_mail_at_once(mailing: Mailing) -> None:
    mailing.fail("p1")
    mailing.tell()
    assert mailing.sent_at is not None
    home = Path(mailing.deployment.instance.root_directory)

    ended = langfuse_worker("export", "resume", "p1", home=home)

    assert "p1 is tried again within a minute" in ended.out
    assert mailing.sent_at is None
    health = HealthStore(mailing.deployment.instance).read(["p1"])["p1"]
    for minute in (1, 6, 16):
        now = NOW + timedelta(minutes=minute)
        health = health.asked(POLICY, now).failed(FAILURE, POLICY, now)
    HealthStore(mailing.deployment.instance).change("p1", lambda _: health)
    mailing.tell(NOW + HOUR)
    assert mailing.server.recipients.count(["owner@p1.example"]) == 2


def test_owners_get_no_mail_where_somebody_switched_it_off(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "EMAIL_OWNERS", "false")
    mailing.notifier = Notifier.from_settings(Settings())
    mailing.fail("p1")

    mailing.tell()

    assert set(mailing.inbox) == {OPS}


def test_owners_hear_where_nobody_else_does(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PREFIX + "EMAIL_TO")
    mailing.notifier = Notifier.from_settings(Settings())
    mailing.fail("p1")

    mailing.tell()

    assert set(mailing.inbox) == {"owner@p1.example"}
