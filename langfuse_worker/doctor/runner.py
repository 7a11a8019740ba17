"""Runs checks one after the other; one that hangs or crashes is a finding and keeps no other from running."""

import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points

from langfuse_worker.doctor.finding import Check, Finding, Status, problem
from langfuse_worker.doctor.machine import machine_checks
from langfuse_worker.settings import Settings

ENTRY_POINTS = "langfuse_worker.checks"


def checks_of(settings: Settings) -> list[Check]:
    """The checks of this deployment: the machine's, and what the packages add for its role."""
    checks = list(machine_checks(settings))
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        add: Callable[[Settings], Sequence[Check]] = entry.load()
        checks += add(settings)
    return checks


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """Yield findings as they are found."""
    failed: set[str] = set()
    for check in checks:
        if failed.intersection(check.needs):
            failed.add(check.name)  # so that what needs this one is left out as well
            continue
        for finding in _run(check):
            if finding.status is Status.PROBLEM:
                failed.add(check.name)
            yield finding


def _run(check: Check) -> list[Finding]:
    findings: list[Finding] = []

    def run() -> None:
        try:
            findings.extend(check.run())
        except Exception as error:
            findings.append(problem(check.name, f"the check failed: {type(error).__name__}: {error}", ""))

    # Of a thread that hangs nobody waits for the end.
    thread = threading.Thread(target=run, name=check.name, daemon=True)
    thread.start()
    thread.join(check.timeout_s)
    if thread.is_alive():
        text = f"no answer within {check.timeout_s:g} s"
        return [*findings, problem(check.name, text, "look for a firewall, or a server that hangs")]
    return findings
