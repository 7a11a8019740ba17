"""Checks that crash, hang or have nothing to stand on."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from langfuse_worker.doctor import Check, Finding, Status, ok, problem, warning
from langfuse_worker.doctor.clock import compare_clocks
from langfuse_worker.doctor.runner import run_checks

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def statuses(*checks: Check) -> list[tuple[str, Status]]:
    """What was looked at, and the result."""
    return [(finding.what, finding.status) for finding in run_checks(checks)]


def test_a_check_that_crashes_is_a_problem_and_keeps_what_it_found_before() -> None:
    def crashes() -> Iterator[Finding]:
        yield ok("first half", "fine")
        raise KeyError("second half")

    found = list(run_checks([Check("crashing", crashes), Check("next", lambda: [ok("next", "fine")])]))

    assert [(f.what, f.status.value) for f in found] == [
        ("first half", "ok"),
        ("crashing", "problem"),
        ("next", "ok"),
    ]
    assert "KeyError: 'second half'" in found[1].result


def test_a_check_that_hangs_is_a_problem_and_the_next_one_runs() -> None:
    released = threading.Event()

    def hangs() -> Iterator[Finding]:
        released.wait()
        yield ok("hanging", "at last")

    found = statuses(Check("hanging", hangs, timeout_s=0.05), Check("next", lambda: [ok("next", "fine")]))
    released.set()
    assert found == [("hanging", Status.PROBLEM), ("next", Status.OK)]


def test_what_stands_on_a_problem_is_left_out_and_what_stands_on_a_warning_is_not() -> None:
    found = statuses(
        Check("server", lambda: [problem("server", "down", "start it")]),
        Check("tables", lambda: [ok("tables", "there")], needs=("server",)),
        Check("columns", lambda: [ok("columns", "there")], needs=("tables",)),
        Check("disk", lambda: [warning("disk", "small", "make room")]),
        Check("files", lambda: [ok("files", "there")], needs=("disk",)),
    )
    assert [what for what, _ in found] == ["server", "disk", "files"]


@pytest.mark.parametrize(
    ("skew_s", "status", "text"),
    [
        (0.2, Status.OK, "as this machine's"),
        (-20, Status.OK, "20 s behind this machine"),
        (90, Status.WARNING, "90 s ahead of this machine"),
        (-400, Status.PROBLEM, "400 s behind this machine"),
    ],
)
def test_clocks_may_differ_a_little(skew_s: float, status: Status, text: str) -> None:
    finding = compare_clocks("clock", NOW + timedelta(seconds=skew_s), NOW)
    assert (finding.status, finding.result) == (status, text)
