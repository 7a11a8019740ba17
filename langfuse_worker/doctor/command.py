"""The command."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from langfuse_worker.console import err, out
from langfuse_worker.doctor.finding import Finding, Status
from langfuse_worker.doctor.runner import checks_of, run_checks
from langfuse_worker.logs import configure_logging
from langfuse_worker.settings import settings

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")] = False,
) -> None:
    """Check this deployment, as its role and settings say, and say what to do.

    Looks at ClickHouse, its users and their limits, every destination, clocks, Dagster, Redis and the disk.
    Test objects are removed again; nothing else is written.

    Exit code 0 when there is no problem (there may be warnings), 1 when there is one, 2 when a setting or the
    catalog is wrong.

    Examples:

    langfuse-worker doctor

    langfuse-worker doctor --json | jq '.[] | select(.status != "ok")'
    """
    config = settings()
    configure_logging("error")
    findings: list[Finding] = []
    with err.status("checking"):
        findings.extend(run_checks(checks_of(config)))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    sys.exit(_exit_code(findings))


def _exit_code(findings: list[Finding]) -> int:
    problems = [finding for finding in findings if finding.status is Status.PROBLEM]
    if any(finding.is_setting for finding in problems):
        return 2
    return 1 if problems else 0


def _print(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        style = _STYLES[finding.status]
        text = escape(finding.result) + (f"\n-> {escape(finding.remedy)}" if finding.remedy else "")
        table.add_row(f"[{style}]{finding.status}[/{style}]", escape(finding.what), text)
    out.print(table)
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    out.print(f"problems: {counts[Status.PROBLEM]}, warnings: {counts[Status.WARNING]}", markup=False)
