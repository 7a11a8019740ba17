"""What a check is, and what it finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """`problem` keeps the product from doing its work, `warning` costs something some day."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: what it is, such as `clickhouse: priorities`.
        result: what was found, one line.
        remedy: what to do about it; empty if nothing has to be done.
        is_setting: whether a setting or the catalog is wrong, so that nothing else can be checked.
    """

    what: str
    status: Status
    result: str
    remedy: str = ""
    is_setting: bool = False


def ok(what: str, result: str) -> Finding:
    """Nothing has to be done."""
    return Finding(what, Status.OK, result)


def warning(what: str, result: str, remedy: str) -> Finding:
    """It works, but."""
    return Finding(what, Status.WARNING, result, remedy)


def problem(what: str, result: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(what, Status.PROBLEM, result, remedy)


@dataclass(frozen=True)
class Check:
    """A function that looks at one thing.

    Attributes:
        name: unique among the checks of a deployment.
        run: finds; may raise, which is a finding too.
        needs: checks that must have found no problem; without them there is nothing to see.
        timeout_s: how long it may take.
    """

    name: str
    run: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    timeout_s: float = 20.0
