"""Which work this deployment does: the one setting `LANGFUSE_WORKER_ROLE`, and what each value loads.

Every part that starts work asks here: the Dagster code locations, the RQ consumers, the commands.
"""

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """The two kinds of work that a role tells apart."""

    EXPORT = "export"
    INGESTION = "ingestion"


class WorkerRole(StrEnum):
    """`all` runs everything, `ingestion` everything except blob storage export, `export` only that."""

    ALL = "all"
    INGESTION = "ingestion"
    EXPORT = "export"

    @property
    def runs_export(self) -> bool:
        """Whether the Dagster location `langfuse_export` has assets, jobs and schedules here."""
        return self.runs(Family.EXPORT)

    @property
    def runs_ingestion(self) -> bool:
        """Whether the consumers that ingest events belong here."""
        return self.runs(Family.INGESTION)

    def runs(self, family: Family) -> bool:
        """Whether work of the family belongs here."""
        return self is WorkerRole.ALL or self.value == family.value


@dataclass(frozen=True)
class Location:
    """A Dagster code location."""

    name: str
    family: Family

    @property
    def module(self) -> str:
        """The module that `dagster -m` takes."""
        return f"{self.name}.definitions"


LOCATIONS = (Location("langfuse_export", Family.EXPORT), Location("langfuse_ingest", Family.INGESTION))


@dataclass(frozen=True)
class Decision:
    """Whether a location or a queue is registered here, and if not, why.

    Attributes:
        name: the location or the queue.
        registered: whether it is.
        reason: empty if it is, else the setting that says no, with its value.
    """

    name: str
    registered: bool
    reason: str = ""


def decide(
    role: WorkerRole, name: str, family: Family, *, flag: str | None = None, enabled: bool = True
) -> Decision:
    """Whether `name` runs in this role; a flag takes away and never adds.

    Args:
        role: the deployment's role.
        name: the location or the queue.
        family: the work it belongs to.
        flag: the variable that can switch it off.
        enabled: the value of that variable.
    """
    if not role.runs(family):
        return Decision(name, False, f"LANGFUSE_WORKER_ROLE={role.value}")
    if not enabled:
        return Decision(name, False, f"{flag}=false")
    return Decision(name, True)


def decide_locations(role: WorkerRole) -> list[Decision]:
    """What Dagster loads in this role."""
    return [decide(role, location.name, location.family) for location in LOCATIONS]


def describe(role: WorkerRole, decisions: list[Decision]) -> str:
    """The first log line: the role, what is registered, and what is not and why."""
    registered = ", ".join(d.name for d in decisions if d.registered) or "nothing"
    line = f"Worker role: {role.value}; registered: {registered}"
    reasons: dict[str, list[str]] = {}
    for decision in decisions:
        if not decision.registered:
            reasons.setdefault(decision.reason, []).append(decision.name)
    for reason, names in reasons.items():
        line += f"; not registered ({reason}): {', '.join(names)}"
    return line
