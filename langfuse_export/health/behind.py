"""A project that is late although nothing fails, and what people are told of it."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict

from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.health.policy import HealthPolicy


class Behind(BaseModel):
    """How a project is late that does not fail.

    Attributes:
        since: when its oldest window that waits was due, UTC; None once it has caught up.
        told: whether people know that it is behind.
        told_at: when they were told so last.
    """

    model_config = ConfigDict(frozen=True)

    since: datetime | None = None
    told: bool = False
    told_at: datetime | None = None

    def again(self, since: datetime) -> Self:
        """A window that was due then has waited for longer than it may."""
        return self.model_copy(update={"since": since})

    def caught_up(self, policy: HealthPolicy, now: datetime) -> Self | None:
        """No window waits any more. When people were told is kept: a project that comes and goes is quiet."""
        is_known = self.told or policy.is_quiet(self.told_at, now)
        return self.model_copy(update={"since": None}) if is_known else None

    def notice(self, policy: HealthPolicy, now: datetime) -> NoticeKind | None:
        """What people should be told now."""
        if self.since is None:
            return NoticeKind.CAUGHT_UP if self.told else None
        return None if policy.is_quiet(self.told_at, now) else NoticeKind.BEHIND

    def noticed(self, kind: NoticeKind, now: datetime) -> Self:
        """People are being told."""
        if kind is NoticeKind.CAUGHT_UP:
            return self.model_copy(update={"told": False})
        return self.model_copy(update={"told": True, "told_at": now})
