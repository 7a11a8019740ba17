"""What people are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from langfuse_export.health.describe import behind, clock, next_step, short_reason
from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.health.state import Health
from langfuse_export.project import ProjectExport
from langfuse_export.windows import iso

# Of a message; a deployment whose ClickHouse is down has every project in it.
MAX_LINES = 20
_SUBJECTS = {
    NoticeKind.FAILING: "fails",
    NoticeKind.STOPPED: "has stopped",
    NoticeKind.RECOVERED: "works again",
    NoticeKind.BEHIND: "is behind",
    NoticeKind.CAUGHT_UP: "has caught up",
}


@dataclass(frozen=True)
class Notice:
    """One project that fails, has stopped, is behind, or works again."""

    kind: NoticeKind
    project: ProjectExport
    health: Health
    at: datetime

    @property
    def line(self) -> str:
        """For people: what happened, why, and what to do."""
        name = self.project.name
        if name != self.project.project_id:
            name += f" ({self.project.project_id})"  # which commands ask for
        if self.kind is NoticeKind.BEHIND:
            return f"{name} is behind: {behind(self.health)}"
        if self.kind is NoticeKind.CAUGHT_UP:
            return f"{name} has caught up: every window that is due has been exported."
        if self.kind is NoticeKind.RECOVERED:
            since = clock(self.health.since)
            return f"{name} works again, after failures since {since}; windows that waited are exported now."
        what = "has stopped" if self.kind is NoticeKind.STOPPED else "is not exported"
        error = self.health.failure.error if self.health.failure else ""
        why = f"{short_reason(self.health.failure)}: {error}"
        return f"{name} {what}, failing since {clock(self.health.since)}: {why} {next_step(self.health)}"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        failure = self.health.failure
        late = self.health.behind if self.kind is NoticeKind.BEHIND else None
        since = late.since if late else self.health.since
        return {
            "kind": self.kind.value,
            "projectId": self.project.project_id,
            "projectName": self.project.name,
            "destination": self.project.destination.url,
            "since": iso(since) if since else None,
            "attempts": self.health.attempts,
            "reason": failure.reason if failure else None,
            "fault": failure.fault.value if failure and failure.fault else None,
            "error": failure.error if failure else None,
            "nextAttempt": iso(self.health.next_attempt) if self.health.next_attempt else None,
        }


@dataclass(frozen=True)
class Message:
    """One message about any number of projects, as every channel sends it."""

    subject: str
    lines: tuple[str, ...]
    body: dict[str, object]
    footer: str = ""

    @property
    def text(self) -> str:
        """The lines, shortened if there are very many."""
        left = len(self.lines) - MAX_LINES
        more = [f"and {left} more projects"] if left > 0 else []
        return "\n".join([*self.lines[:MAX_LINES], *more, *(["", self.footer] if self.footer else [])])


def message_of(notices: Sequence[Notice], now: datetime, footer: str = "") -> Message:
    """One message of all that is to be told now, with a line for people below."""
    subject = f"Langfuse exports: {len(notices)} projects changed"
    if len(notices) == 1:
        subject = f"Langfuse export of {notices[0].project.name} {_SUBJECTS[notices[0].kind]}"
    body = {"type": "blob-export", "sentAt": iso(now), "notices": [notice.as_json() for notice in notices]}
    return Message(subject, tuple(notice.line for notice in notices), body, footer)


def trial_message(now: datetime) -> Message:
    """What `langfuse-worker notify test` sends."""
    line = "This is a test of the notifications of langfuse-worker. Nothing is wrong."
    return Message("Langfuse export: test", (line,), {"type": "test", "sentAt": iso(now), "notices": []})
