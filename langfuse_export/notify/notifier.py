"""Decides who is told of what, once, and tells them. Best effort: nothing here fails an export."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import structlog

from langfuse_export.health.policy import HealthPolicy
from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.notify.channels import Channel, DeliveryError, Email, Slack, Webhook
from langfuse_export.notify.notice import Message, Notice, message_of
from langfuse_export.notify.owner_mail import MOST_NOTICES, OwnerMail, owner_mail
from langfuse_export.project import ProjectExport
from langfuse_worker.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True)
class Notifier:
    """Who is told.

    Attributes:
        channels: those that are configured; they hear of every project.
        owner_mail: mails the owners that Langfuse's Postgres knows, of their own projects.
    """

    channels: tuple[Channel, ...] = ()
    owner_mail: OwnerMail | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Notifier":
        """What is configured."""
        channels: list[Channel] = []
        if settings.notify_webhook_url:
            secret = settings.notify_webhook_secret
            url = settings.notify_webhook_url.get_secret_value()
            channels.append(Webhook(url, secret.get_secret_value() if secret else None))
        if settings.notify_slack_url:
            channels.append(Slack(settings.notify_slack_url.get_secret_value()))
        if settings.smtp_url and settings.email_from and settings.notify_email_to:
            url = settings.smtp_url.get_secret_value()
            channels.append(Email(url, settings.email_from, settings.notify_email_to))
        return cls(tuple(channels), owner_mail(settings))

    def tell(self, notices: Sequence[Notice], now: datetime) -> None:
        """Send one message to every channel, and each owner his own."""
        self.send(message_of(notices, now))
        if self.owner_mail:
            self.owner_mail.send(notices, now)

    def send(self, message: Message) -> dict[str, str | None]:
        """Send to every channel side by side.

        Returns:
            by channel, None or what went wrong.
        """
        if not self.channels:
            return {}
        with ThreadPoolExecutor(len(self.channels)) as pool:
            results = dict(
                zip(
                    [c.name for c in self.channels],
                    pool.map(lambda c: _send(c, message), self.channels),
                    strict=True,
                )
            )
        for channel, error in results.items():
            if error:
                log.error("notification_failed", channel=channel, error=error)
            else:
                log.info("notification_sent", channel=channel, subject=message.subject)
        return results


def _send(channel: Channel, message: Message) -> str | None:
    try:
        channel.send(message)
    except DeliveryError as error:
        return str(error)
    except Exception as error:
        return type(error).__name__  # an unexpected message may hold an address
    return None


def tell_people(
    store: HealthStore,
    notifier: Notifier,
    projects: Mapping[str, ProjectExport],
    policy: HealthPolicy,
    now: datetime,
) -> None:
    """Send what has to be told. Each notice is claimed in the project's record first: two never send it."""
    if not notifier.channels and not notifier.owner_mail:
        return
    claimed = _claimed(store, projects, store.read(projects).items(), policy, now)
    # What is not claimed now is told by the next tick.
    notices = list(islice(claimed, MOST_NOTICES if notifier.owner_mail else None))
    if notices:
        notifier.tell(notices, now)


def _claimed(
    store: HealthStore,
    projects: Mapping[str, ProjectExport],
    records: Iterable[tuple[str, Health]],
    policy: HealthPolicy,
    now: datetime,
) -> Iterable[Notice]:
    for project_id, health in records:
        kind = health.notice(policy, now)
        if kind and store.replace(project_id, health, health.noticed(kind, now)):
            yield Notice(kind, projects[project_id], health, now)
