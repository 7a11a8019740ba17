"""How patient a deployment is with a project that fails."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from langfuse_worker.settings import Settings


@dataclass(frozen=True)
class HealthPolicy:
    """How patient a deployment is with a project that fails.

    Attributes:
        first_delay: from the first failure to the next attempt; doubles from there.
        max_delay: where the doubling ends.
        evidence: failed attempts in a row that prove a fault: a project whose destination refuses it stops,
            any other waits as a whole, and people are told.
        stop_after: how long a destination has to refuse at least before its project stops.
        probe_every: how often a project that is stopped is tried nevertheless.
        max_rounds: attempts at windows that fail by themselves, before they are left to people.
        cooldown: least time between two notices that a project fails, or that it is behind.
        behind_after: how long a window that is due may wait before its project is behind; 0: never is.
    """

    first_delay: timedelta = timedelta(minutes=5)
    max_delay: timedelta = timedelta(hours=6)
    evidence: int = 3
    stop_after: timedelta = timedelta(minutes=10)
    probe_every: timedelta = timedelta(hours=24)
    max_rounds: int = 20
    cooldown: timedelta = timedelta(hours=24)
    behind_after: timedelta = timedelta(hours=6)

    @classmethod
    def from_settings(cls, settings: Settings) -> "HealthPolicy":
        """The deployment's policy."""
        return cls(
            first_delay=timedelta(seconds=settings.export_backoff_first_s),
            max_delay=timedelta(seconds=settings.export_backoff_max_s),
            evidence=settings.export_stop_after_failures,
            stop_after=timedelta(seconds=settings.export_stop_after_s),
            probe_every=timedelta(hours=settings.export_probe_hours),
            cooldown=timedelta(hours=settings.notification_cooldown_hours),
            behind_after=timedelta(hours=settings.export_behind_hours),
        )

    def delay(self, attempts: int) -> timedelta:
        """From the last of so many failed attempts in a row to the next one; at most `max_delay`."""
        if attempts < 1:
            return timedelta(0)
        doublings = min(attempts - 1, 29)  # beyond, a timedelta overflows
        return min(self.first_delay * 2**doublings, self.max_delay)

    def is_quiet(self, told_at: datetime | None, now: datetime) -> bool:
        """Whether people who were told then are not told again yet."""
        return told_at is not None and now < told_at + self.cooldown
