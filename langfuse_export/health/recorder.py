"""Writes what runs experience into the health of their project, and says when its state changes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg
import structlog

from langfuse_export.errors import reason_of, stops_project, user_fault
from langfuse_export.health.fingerprint import fingerprint, new_salt
from langfuse_export.health.policy import HealthPolicy
from langfuse_export.health.state import Failure, Health, State
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import FAILURE_TAG, STATE_TAG
from langfuse_export.project import ProjectExport

log = structlog.get_logger()

_EVENTS = {
    State.STOPPED: "project_stopped",
    State.BACKING_OFF: "project_backing_off",
    State.RETRYING: "project_retrying",
    State.CATCHING_UP: "project_recovered",
    State.HEALTHY: "project_caught_up",
}


@dataclass
class RunOutcome:
    """What became of the windows of a run.

    Attributes:
        left: partition keys of windows that it has not exported; those that it never came to are among them,
            because Dagster shows them as failed, too.
        exported: keys of windows of which it exported every table.
        progressed: whether it exported any table at all, in this attempt or an earlier one.
        errors: why it failed.
    """

    left: list[str] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)
    progressed: bool = False
    errors: list[Exception] = field(default_factory=list)

    def finished(self, key: str) -> None:
        """Every table of a window has been exported; the key is its partition's."""
        self.left.remove(key)
        self.exported.append(key)

    @property
    def failure(self) -> Failure | None:
        """The failure of the run, if it failed."""
        if not self.errors:
            return None
        worst = next((error for error in self.errors if stops_project(error)), self.errors[-1])
        return Failure(
            windows=tuple(self.left),
            reason=reason_of(worst),
            error=str(worst),
            blocks=stops_project(worst),
            fault=user_fault(worst),
        )


def record_outcome(
    instance: dg.DagsterInstance,
    project: ProjectExport,
    outcome: RunOutcome,
    policy: HealthPolicy,
    now: Callable[[], datetime],
) -> Health | None:
    """Write what a run experienced. Best effort: what goes wrong here is logged and fails no export.

    Returns:
        the project's health afterwards; None if it is in no trouble.
    """
    failure = outcome.failure
    salt = new_salt()

    def change(before: Health | None) -> Health | None:
        health = before
        if health and outcome.progressed:
            health = health.exported(tuple(outcome.exported), now())
        if failure:
            said = project.destination.masked(failure.error)
            shown = failure.model_copy(update={"error": said})
            health = (health or Health()).failed(shown, policy, now())
            health = health.model_copy(update={"salt": salt, "fingerprint": fingerprint(project, salt)})
        return health

    try:
        return change_health(HealthStore(instance), project.project_id, change)
    except Exception as error:
        log.error("health_not_recorded", projectId=project.project_id, error=str(error))
        return None


def tag_failure(
    instance: dg.DagsterInstance, run_id: str, outcome: RunOutcome, health: Health | None
) -> None:
    """Let the list of runs say why the run failed, and in which state it left its project."""
    if outcome.failure:
        tags = {FAILURE_TAG: outcome.failure.reason}
        if health:
            tags[STATE_TAG] = health.state.value
        instance.add_run_tags(run_id, tags)


def resume_project(instance: dg.DagsterInstance, project_id: str, now: datetime) -> Health | None:
    """Have a project tried again now. None if it is in no trouble, or works again."""
    health = HealthStore(instance).change(
        project_id, lambda before: before.resumed(now) if before and before.is_failing else before
    )
    if health is None or not health.is_failing:
        return None
    log.info("project_resumed", projectId=project_id, cause="somebody asked for it")
    return health


def adopt_failed(
    store: HealthStore, project_id: str, failed: Collection[str], policy: HealthPolicy, now: datetime
) -> None:
    """Have windows tried again whose run could not report its failure, because its process was killed.

    Args:
        failed: partition keys that Dagster shows as failed and that are not on their way.
    """

    def change(before: Health | None) -> Health | None:
        # A run may have reported since the caller looked.
        orphans = tuple(sorted(set(failed) - set(before.windows if before else ())))
        after = (before or Health()).found_failed(orphans, policy, now) if orphans else before
        # A full record keeps the newest windows; the others would be found again and again.
        return before if before and after and after.windows == before.windows else after

    if failed:
        change_health(store, project_id, change)


def change_health(
    store: HealthStore, project_id: str, change: Callable[[Health | None], Health | None]
) -> Health | None:
    """Change a record as `HealthStore.change` does, and log a new state."""
    seen: list[Health | None] = [None]

    def remember(before: Health | None) -> Health | None:
        seen[0] = before
        return change(before)

    after = store.change(project_id, remember)
    log_transition(project_id, seen[0], after)
    return after


def log_transition(project_id: str, before: Health | None, after: Health | None) -> None:
    """One line when the state has changed."""
    old = before.state if before else State.HEALTHY
    new = after.state if after else State.HEALTHY
    if old is new:
        return
    fields: dict[str, object] = {"projectId": project_id, "before": old.value}
    if after and after.failure and after.windows:
        fields |= {"reason": after.failure.reason, "error": after.failure.error, "attempts": after.attempts}
    if after and after.next_attempt:
        fields["nextAttempt"] = after.next_attempt.isoformat(timespec="seconds")
    is_trouble = new in (State.STOPPED, State.BACKING_OFF, State.RETRYING)
    (log.warning if is_trouble else log.info)(_EVENTS[new], **fields)
