"""Notifications over the wire: what arrives, what is said when it does not, and that secrets stay secret."""

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from langfuse_export.catalog.load import Sources, resolve
from langfuse_export.catalog.model import CatalogModel
from langfuse_export.catalog.postgres import Rejection
from langfuse_export.health.fingerprint import fingerprint
from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.health.policy import HealthPolicy
from langfuse_export.health.state import Failure, Health
from langfuse_export.health.store import HealthStore
from langfuse_export.notify.channels import Email, signature
from langfuse_export.notify.left_out import tell_left_out
from langfuse_export.notify.notice import Notice, message_of
from langfuse_export.notify.notifier import Notifier, tell_people
from langfuse_export.project import ProjectExport
from langfuse_worker.settings import Settings
from langfuse_worker.store_faults import AccessFault
from tests.command import langfuse_worker
from tests.servers.notifications import MailServer, WebhookReceiver

PREFIX = "LANGFUSE_BLOB_STORAGE_FAILURE_NOTIFICATION_"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
POLICY = HealthPolicy()
DENIED = Failure(
    windows=("2026-06-01T00",),
    reason="destination_access",
    error="s3://archive/: <AccessDenied> & more",
    blocks=True,
    fault=AccessFault.CREDENTIALS,
)


@pytest.fixture
def project() -> ProjectExport:
    """A project with a secret."""
    destination = {"url": "s3://archive/", "access_key_id": "AKIA", "secret_access_key": "hunter2"}
    model = CatalogModel.model_validate(
        {
            "destinations": {"archive": destination},
            "projects": [{"id": "p1", "name": "Support", "destination": "archive", "start": "2026-06-01"}],
        }
    )
    return resolve(Sources(model), Settings(), NOW).project("p1")


@pytest.fixture
def channels(webhook: WebhookReceiver, mail_server: MailServer) -> dict[str, str]:
    """The environment of a deployment with all of them; Slack is the same receiver."""
    return {
        PREFIX + "WEBHOOK_URL": webhook.url,
        PREFIX + "WEBHOOK_SECRET": "signing-key",
        PREFIX + "SLACK_URL": webhook.url,
        PREFIX + "EMAIL_TO": "a@example.com, b@example.com",
        "SMTP_CONNECTION_URL": mail_server.url,
        "EMAIL_FROM_ADDRESS": "langfuse@example.com",
    }


def _stopped() -> Health:
    health = Health()
    for minute in (0, 5, 15):
        health = health.failed(DENIED, POLICY, NOW + timedelta(minutes=minute))
    return health


def test_every_channel_carries_what_happened_and_what_to_do(
    project: ProjectExport, channels: dict[str, str], webhook: WebhookReceiver, mail_server: MailServer
) -> None:
    notifier = Notifier.from_settings(Settings(**channels))  # type: ignore[arg-type]

    results = notifier.send(message_of([Notice(NoticeKind.STOPPED, project, _stopped(), NOW)], NOW))

    assert results == {"webhook": None, "slack": None, "email": None}
    by_signature = {"x-langfuse-signature" in headers: (headers, body) for headers, body in webhook.requests}
    headers, body = by_signature[True]
    timestamp, _, given = headers["x-langfuse-signature"].removeprefix("t=").partition(",v1=")
    signed = hmac.new(b"signing-key", f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(given, signed)
    [notice] = json.loads(body)["notices"]
    assert notice["kind"] == "stopped"
    assert (notice["projectId"], notice["reason"], notice["fault"]) == (
        "p1",
        "destination_access",
        "credentials",
    )
    assert notice["nextAttempt"] == "2026-06-02T12:15:00.000Z"
    slack = json.loads(by_signature[False][1])["text"]
    assert "*Langfuse export of Support has stopped*" in slack
    assert "Support (p1) has stopped" in slack  # commands ask for the id
    assert "&lt;AccessDenied&gt; &amp; more" in slack
    [mail] = mail_server.mails
    assert mail["To"] == "a@example.com, b@example.com"
    assert mail["From"] == "langfuse@example.com"
    assert "Support has stopped" in mail["Subject"]
    assert "langfuse-worker export resume" in " ".join(str(mail.get_payload()).split())


def test_a_message_about_many_projects_is_one_message_of_bounded_length(project: ProjectExport) -> None:
    notices = [
        Notice(NoticeKind.FAILING, replace(project, name=f"project {n}"), _stopped(), NOW) for n in range(500)
    ]

    message = message_of(notices, NOW)

    assert len(message.text.splitlines()) == 21
    assert message.text.endswith("and 480 more projects")
    assert message.subject == "Langfuse exports: 500 projects changed"


def test_a_channel_that_fails_is_logged_without_its_secrets_and_keeps_nobody_else(
    channels: dict[str, str], webhook: WebhookReceiver, mail_server: MailServer, tmp_path: Path
) -> None:
    webhook.statuses = [403, 403]
    channels["SMTP_CONNECTION_URL"] = f"smtp://langfuse:wrong-secret@127.0.0.1:{mail_server.port}"

    ended = langfuse_worker("notify", "test", "--json", home=tmp_path / "home", **channels)

    assert ended.code == 1
    errors = {result["channel"]: result["error"] for result in ended.json}
    assert errors["webhook"] == errors["slack"] == "answered 403"
    assert "Authentication" in errors["email"]
    for secret in ("secret-path", "wrong-secret", "signing-key"):
        assert secret not in ended.out + ended.err


def test_a_receiver_that_is_overloaded_for_a_moment_is_asked_again(
    channels: dict[str, str], webhook: WebhookReceiver
) -> None:
    webhook.statuses = [503]
    settings = Settings(**{PREFIX + "SLACK_URL": webhook.url})  # type: ignore[arg-type]

    assert Notifier.from_settings(settings).send(message_of([], NOW)) == {"slack": None}
    assert len(webhook.requests) == 2


@pytest.mark.timeout(30)
@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_wants_to_be_asked_later_holds_nobody_up(
    webhook: WebhookReceiver, status: int
) -> None:
    webhook.statuses, webhook.retry_after = [status] * 2, 3600
    settings = Settings(**{PREFIX + "SLACK_URL": webhook.url})  # type: ignore[arg-type]

    assert Notifier.from_settings(settings).send(message_of([], NOW)) == {"slack": f"answered {status}"}


@pytest.mark.parametrize("goodbye", ["421 closing", "500 what?", "nonsense"])
def test_a_mail_that_was_taken_is_sent_however_the_server_says_goodbye(
    mail_server: MailServer, goodbye: str
) -> None:
    mail_server.goodbye = goodbye
    email = Email(mail_server.url, "langfuse@example.com", ("a@example.com",))

    assert email.deliver([(email.recipients, message_of([], NOW))]) == [None]
    assert len(mail_server.mails) == 1


@pytest.mark.parametrize("login", ["langfuse:p%C3%A4ssword", "langfuse:not/encoded"])
def test_a_password_that_smtp_cannot_carry_is_no_mail_and_no_secret_in_what_is_said(
    mail_server: MailServer, login: str
) -> None:
    email = Email(f"smtp://{login}@127.0.0.1:{mail_server.port}", "langfuse@example.com", ("a@example.com",))

    [error] = email.deliver([(email.recipients, message_of([], NOW))])

    assert error == "SMTP_CONNECTION_URL cannot be used: its parts must be ASCII, and percent-encoded"


def test_the_name_of_a_project_calls_nobody_in_slack(
    project: ProjectExport, webhook: WebhookReceiver
) -> None:
    settings = Settings(**{PREFIX + "SLACK_URL": webhook.url})  # type: ignore[arg-type]
    named = replace(project, name="<!channel>")

    Notifier.from_settings(settings).send(
        message_of([Notice(NoticeKind.STOPPED, named, _stopped(), NOW)], NOW)
    )

    [(_, body)] = webhook.requests
    assert "<!" not in json.loads(body)["text"]


def test_nobody_there_is_said_without_the_address(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/services/secret-path"

    ended = langfuse_worker("notify", "test", home=tmp_path / "home", **{PREFIX + "WEBHOOK_URL": url})

    assert ended.code == 1
    assert "webhook: no answer: NewConnectionError" in ended.out
    assert "secret-path" not in ended.out + ended.err


def test_notify_test_reaches_every_channel(
    channels: dict[str, str], webhook: WebhookReceiver, mail_server: MailServer, tmp_path: Path
) -> None:
    ended = langfuse_worker("notify", "test", home=tmp_path / "home", **channels)

    assert ended.code == 0
    assert ended.out.splitlines() == ["webhook: sent", "slack: sent", "email: sent"]
    assert len(webhook.requests) == 2
    assert len(mail_server.mails) == 1


def test_without_any_channel_the_command_says_which_settings_there_are(tmp_path: Path) -> None:
    ended = langfuse_worker("notify", "test", home=tmp_path / "home")

    assert ended.code == 2
    assert PREFIX + "WEBHOOK_URL" in ended.err
    assert "SMTP_CONNECTION_URL" in ended.err


def test_of_two_processes_one_tells_people(
    project: ProjectExport, webhook: WebhookReceiver, instance: dg.DagsterInstance
) -> None:
    notifier = Notifier.from_settings(Settings(**{PREFIX + "SLACK_URL": webhook.url}))  # type: ignore[arg-type]
    store = HealthStore(instance)
    store.change("p1", lambda _: _stopped())
    stale = store.read(["p1"])["p1"]
    for _ in range(2):
        tell_people(HealthStore(instance), notifier, {"p1": project}, POLICY, NOW + timedelta(minutes=16))

    assert len(webhook.requests) == 1
    assert not store.replace("p1", stale, None)  # who read before is too late


def test_an_invalid_row_is_told_once_and_again_when_it_is_mended(
    webhook: WebhookReceiver, instance: dg.DagsterInstance
) -> None:
    notifier = Notifier.from_settings(Settings(**{PREFIX + "WEBHOOK_URL": webhook.url}))  # type: ignore[arg-type]
    invalid = [Rejection("p1", "type 'FTP' must be one of S3"), Rejection("p2", "bucket_name is empty")]
    for rejections in ([], invalid[:1], invalid[:1], invalid, invalid[1:], invalid[1:]):
        tell_left_out(instance, notifier, rejections, NOW)

    sent = [json.loads(body)["notices"] for _, body in webhook.requests]
    assert sent == [
        [{"kind": "left_out", "projectId": "p1", "error": "type 'FTP' must be one of S3"}],
        [{"kind": "left_out", "projectId": "p2", "error": "bucket_name is empty"}],
        [{"kind": "taken_in", "projectId": "p1", "error": None}],
    ]


def test_a_fingerprint_changes_with_every_setting_and_holds_none(project: ProjectExport) -> None:
    first = fingerprint(project, "salt")

    other_secret = replace(project, destination=replace(project.destination, secret_access_key="hunter3"))
    other_url = replace(project, destination=replace(project.destination, url="s3://other/"))
    assert len({first, fingerprint(other_secret, "salt"), fingerprint(other_url, "salt")}) == 3
    assert fingerprint(project, "salt") == first != fingerprint(project, "pepper")
    assert fingerprint(replace(project, name="renamed", enabled=False), "salt") == first
    assert "hunter2" not in first


def test_the_signature_is_of_time_and_body() -> None:
    assert signature("key", b"{}", 1) != signature("key", b"{}", 2)
    assert signature("key", b"{}", 1).startswith("t=1,v1=")
