"""The health of a project, and how attempts change it. Pure: time and history in, decision out."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict

from langfuse_export.health.behind import Behind
from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.health.policy import HealthPolicy
from langfuse_worker.store_faults import AccessFault

MAX_ERROR_CHARS = 1000
# Of a project whose every window fails by itself; more are left to people.
MAX_WINDOWS = 1000


class State(StrEnum):
    """What an operator sees of a project."""

    HEALTHY = "healthy"
    RETRYING = "retrying"
    """Some windows failed and are tried again; the others go on."""
    BACKING_OFF = "backing_off"
    """Every window waits, and one is tried now and then."""
    STOPPED = "stopped"
    """Somebody has to mend the destination; one window is tried once in a long while."""
    CATCHING_UP = "catching_up"
    """It works again; windows that waited are on their way."""


class Failure(BaseModel):
    """How a run failed.

    Attributes:
        windows: partition keys of the windows that failed.
        reason: one of the failure counter's.
        error: for people; cut to 1000 characters.
        blocks: whether every other window would fail alike.
        fault: what the destination's owner has to change, if the store said so.
    """

    model_config = ConfigDict(frozen=True)

    windows: tuple[str, ...]
    reason: str
    error: str
    blocks: bool
    fault: AccessFault | None = None


class Health(BaseModel):
    """The trouble that a project is in; a project without any has no record.

    Attributes:
        since: when the trouble began, UTC; None once it is over.
        blocked: whether every window waits.
        stopped: whether somebody has to act.
        streak: attempts in a row that exported nothing.
        rounds: attempts in a row at the failed windows that did not mend one.
        requested: whether an attempt was asked for and has not reported back; it counts as failed until then,
            so that a process that is killed backs off like one that fails.
        user_faults: attempts that failed for something the destination's owner has to change.
        user_faults_since: the first of them.
        next_attempt: when the next attempt may be asked for.
        windows: partition keys of the windows that failed, of any age.
        failure: the last one.
        salt: of the fingerprint.
        fingerprint: of the configuration that failed.
        told: what people know of this trouble.
        told_at: when they were told of a failure.
        behind: whether it is late although nothing fails.
    """

    model_config = ConfigDict(frozen=True)

    since: datetime | None = None
    blocked: bool = False
    stopped: bool = False
    streak: int = 0
    rounds: int = 0
    requested: bool = False
    user_faults: int = 0
    user_faults_since: datetime | None = None
    next_attempt: datetime | None = None
    windows: tuple[str, ...] = ()
    failure: Failure | None = None
    salt: str = ""
    fingerprint: str = ""
    told: NoticeKind | None = None
    told_at: datetime | None = None
    behind: Behind | None = None

    @property
    def state(self) -> State:
        """The state, for people and for schedules."""
        if self.stopped:
            return State.STOPPED
        if self.blocked:
            return State.BACKING_OFF
        if self.windows:
            return State.RETRYING
        return State.HEALTHY if self.since is None else State.CATCHING_UP

    @property
    def is_failing(self) -> bool:
        """Whether something waits to be tried again."""
        return self.state not in (State.HEALTHY, State.CATCHING_UP)

    @property
    def waits(self) -> bool:
        """Whether it fails as a whole: nobody but `recovery_sensor` asks for its windows, one at a time."""
        return self.state in (State.STOPPED, State.BACKING_OFF)

    @property
    def is_behind(self) -> bool:
        """Whether a window that is due has waited for long."""
        return self.behind is not None and self.behind.since is not None

    @property
    def attempts(self) -> int:
        """Attempts that have failed, in a row."""
        return self.streak if self.blocked else self.rounds

    def is_due(self, now: datetime) -> bool:
        """Whether an attempt at what failed may be asked for."""
        return self.next_attempt is not None and self.next_attempt <= now

    def exported(self, windows: tuple[str, ...], now: datetime) -> Self:
        """A run exported something.

        Args:
            windows: the keys of those windows that have all their tables.
            now: the end of the run.
        """
        left = tuple(key for key in self.windows if key not in windows)
        changes: dict[str, object] = {"windows": left, "blocked": False, "stopped": False, "streak": 0}
        changes |= {"user_faults": 0, "user_faults_since": None}
        if self.blocked or len(left) < len(self.windows):  # trying again helps
            changes |= {"rounds": 0, "requested": False, "next_attempt": now if left else None}
        return self.model_copy(update=changes)

    def failed(self, failure: Failure, policy: HealthPolicy, now: datetime) -> Self:
        """A run ended with failed windows; what it exported has been told before."""
        failure = failure.model_copy(update={"error": failure.error[:MAX_ERROR_CHARS]})
        told = {
            "since": self.since or now,
            "windows": _merged(self.windows, failure.windows),
            "failure": failure,
            "requested": False,
        }
        if self.blocked and not self.requested and not self.is_due(now):
            # A run that was queued before: it says nothing new, and must not make the others wait longer.
            return self.model_copy(update=told)
        streak = self.streak + (not (self.blocked and self.requested))
        blocked = self.blocked or failure.blocks or streak >= policy.evidence
        rounds = max(1, self.rounds)
        changes: dict[str, object] = {**told, "blocked": blocked, "streak": streak, "rounds": rounds}
        if blocked or self.requested or not self.rounds:
            changes["next_attempt"] = now + policy.delay(streak if blocked else rounds)
        if failure.fault:
            changes["user_faults"] = self.user_faults + 1
            changes["user_faults_since"] = self.user_faults_since or now
        return self.model_copy(update=changes)._stopped_if_proven(policy, now)

    def asked(self, policy: HealthPolicy, now: datetime) -> Self:
        """An attempt at what failed is on its way."""
        streak = self.streak + self.blocked
        rounds = self.rounds + (not self.blocked)
        delay = policy.probe_every if self.stopped else policy.delay(streak if self.blocked else rounds)
        given_up = not self.blocked and rounds > policy.max_rounds
        return self.model_copy(
            update={
                "streak": streak,
                "rounds": rounds,
                "requested": True,
                "next_attempt": None if given_up else now + delay,
            }
        )

    def resumed(self, now: datetime) -> Self:
        """Somebody changed something: try again now, and forget the evidence."""
        return self.model_copy(
            update={
                "blocked": self.blocked or self.stopped,
                "stopped": False,
                "streak": 0,
                "rounds": 0,
                "requested": False,
                "user_faults": 0,
                "user_faults_since": None,
                "next_attempt": now,
                "told": self.told and NoticeKind.FAILING,
                "told_at": None,  # who has just done something hears at once whether it helped
            }
        )

    def found_failed(self, windows: tuple[str, ...], policy: HealthPolicy, now: datetime) -> Self:
        """Windows are recorded as failed whose run could not say so itself: its process was killed."""
        failure = Failure(
            windows=windows,
            reason="crashed",
            error="the run's process ended before it could report",
            blocks=False,
        )
        return self.failed(failure, policy, now)

    def notice(self, policy: HealthPolicy, now: datetime) -> NoticeKind | None:
        """What people should be told now."""
        if self.stopped:
            return None if self.told is NoticeKind.STOPPED else NoticeKind.STOPPED
        if self.state in (State.HEALTHY, State.CATCHING_UP) and self.told:
            return NoticeKind.RECOVERED
        if self.state is State.HEALTHY:
            return self.behind.notice(policy, now) if self.behind else None
        if self.state is State.CATCHING_UP:
            return None
        lasts = self.attempts >= policy.evidence and (self.blocked or self.told is None)
        return NoticeKind.FAILING if lasts and not policy.is_quiet(self.told_at, now) else None

    def noticed(self, kind: NoticeKind, now: datetime) -> Self:
        """People are being told."""
        if kind is NoticeKind.RECOVERED:
            return self.model_copy(update={"told": None})
        if self.behind and kind in (NoticeKind.BEHIND, NoticeKind.CAUGHT_UP):
            return self.model_copy(update={"behind": self.behind.noticed(kind, now)})
        return self.model_copy(update={"told": kind, "told_at": now})

    def forgetting(self, windows: tuple[str, ...]) -> Self:
        """Without windows that the project no longer has, such as those of another frequency."""
        return self.model_copy(update={"windows": tuple(key for key in self.windows if key not in windows)})

    def caught_up(self, policy: HealthPolicy, now: datetime) -> "Health | None":
        """Every window that waited has been exported: the trouble is over, but not when people were told."""
        told_at = self.told_at if policy.is_quiet(self.told_at, now) else None
        return Health(told_at=told_at, behind=self.behind) if told_at or self.behind else None

    def _stopped_if_proven(self, policy: HealthPolicy, now: datetime) -> Self:
        since = self.user_faults_since
        proven = (
            self.user_faults >= policy.evidence and since is not None and now - since >= policy.stop_after
        )
        if not self.stopped and not proven:
            return self
        return self.model_copy(
            update={"stopped": True, "blocked": True, "next_attempt": now + policy.probe_every}
        )


def _merged(known: tuple[str, ...], failed: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*known, *failed})[-MAX_WINDOWS:])
