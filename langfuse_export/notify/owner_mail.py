"""Mails each project's owners what happens to their projects, and nothing of anybody else's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.notify.channels import Email
from langfuse_export.notify.notice import Message, Notice, message_of
from langfuse_export.notify.owners import GRANT, SENT_COLUMN, Owners
from langfuse_worker.logs import warn_once
from langfuse_worker.postgres import Database, DatabaseError
from langfuse_worker.settings import Settings

log = structlog.get_logger()

# A sensor's tick has a minute for all of its mails.
MOST_NOTICES = 100
WHERE = "The export is set up in Langfuse, in the project's settings under Integrations, Blob Storage."


@dataclass(frozen=True)
class OwnerMail:
    """Tells owners of projects of Langfuse's Postgres.

    Attributes:
        email: the server and the sender; its recipients are not used.
        cooldown: for which Langfuse and this product mail a failure once.
    """

    email: Email
    owners: Owners
    cooldown: timedelta

    def send(self, notices: Sequence[Notice], now: datetime) -> None:
        """Mail them. People with the same notices share a message. Best effort: what fails is logged."""
        projects = {notice.project.project_id for notice in notices if notice.project.in_postgres}
        if not projects:
            return
        try:
            people = self.owners.emails(projects)
        except DatabaseError as error:
            log.error("owners_unknown", projects=len(projects), error=str(error), grant=GRANT)
            return
        told = [notice for notice in notices if notice.project.project_id in people]
        mails = [
            (emails, message_of(theirs, now, WHERE))
            for emails, theirs in _grouped(self._unclaimed(told, now), people).items()
        ]
        if mails:
            self._deliver(mails)

    def _unclaimed(self, notices: Sequence[Notice], now: datetime) -> list[Notice]:
        """Without failures that Langfuse has mailed within the cooldown."""
        stopped = {n.project.project_id for n in notices if n.kind is NoticeKind.STOPPED}
        failing = {n.project.project_id for n in notices if n.kind is NoticeKind.FAILING}
        claimed = failing
        try:
            if failing:
                claimed = self.owners.claim(failing, self.cooldown, now)
            if stopped:  # is always told, as in Langfuse
                self.owners.claim(stopped, timedelta(0), now)
        except DatabaseError as error:
            warn_once(
                "owners_not_claimed",
                error=str(error),
                grant=f"GRANT UPDATE ({SENT_COLUMN}) on blob_storage_integrations",
                effect="Langfuse may mail the same failure",
            )
        for project_id in failing - claimed:
            log.info("owners_told_by_langfuse", projectId=project_id)
        return [n for n in notices if n.kind is not NoticeKind.FAILING or n.project.project_id in claimed]

    def _deliver(self, mails: Sequence[tuple[tuple[str, ...], Message]]) -> None:
        errors = self.email.deliver(mails)
        for (recipients, message), error in zip(mails, errors, strict=True):
            fields = {"channel": "owners", "subject": message.subject, "recipients": len(recipients)}
            if error:
                log.error("notification_failed", **fields, error=error)
            else:
                log.info("notification_sent", **fields)


def owner_mail(settings: Settings) -> OwnerMail | None:
    """Where Langfuse's Postgres and a mail server are set, and nobody has switched it off."""
    smtp, sender, postgres = settings.smtp_url, settings.email_from, settings.database_url
    if not settings.notify_owners or not smtp or not sender or not postgres:
        return None
    cooldown = timedelta(hours=settings.notification_cooldown_hours)
    return OwnerMail(Email(smtp.get_secret_value(), sender, ()), Owners(Database(postgres)), cooldown)


def _grouped(
    notices: Sequence[Notice], people: dict[str, frozenset[str]]
) -> dict[tuple[str, ...], list[Notice]]:
    """Notices by who gets them: everybody is in one group, and sees nobody outside of his projects."""
    theirs: dict[str, list[int]] = {}
    for number, notice in enumerate(notices):
        for email in people[notice.project.project_id]:
            theirs.setdefault(email, []).append(number)
    groups: dict[tuple[int, ...], list[str]] = {}
    for email, numbers in theirs.items():
        groups.setdefault(tuple(numbers), []).append(email)
    return {tuple(sorted(emails)): [notices[n] for n in numbers] for numbers, emails in groups.items()}
