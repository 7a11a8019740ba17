"""Runs windows through the Dagster assets in this process."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import dagster as dg

from langfuse_export.attempts import failure_message, failure_reasons
from langfuse_export.errors import meets_every_window
from langfuse_export.manifest import ManifestFile
from langfuse_export.metadata import manifest_entry
from langfuse_export.naming import (
    PROJECT_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    asset_key,
    job_name,
    safe_name,
)
from langfuse_export.project import ProjectExport
from langfuse_export.run_requests import consecutive
from langfuse_export.tables import Table
from langfuse_export.windows import Window, iso


@dataclass
class RunReport:
    """What a command's runs did; times in seconds, sizes in bytes.

    Attributes:
        left_out: windows of runs that were not begun, because every window would have failed alike.
        left_out_reason: the reason for which, as metrics call it; empty if there are none.
    """

    project: str
    windows: int
    exported_windows: int = 0
    rows: int = 0
    bytes: int = 0
    duration_s: float = 0.0
    left_out: int = 0
    left_out_reason: str = ""
    failures: list[str] = field(default_factory=list)
    objects: list[ManifestFile] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        objects = [file.model_dump(by_alias=True, exclude={"columns"}) for file in self.objects]
        return {**asdict(self), "objects": objects}


def parse_moment(text: str, option: str) -> datetime:
    """A moment on the command line; without a zone it is UTC. Raises ValueError naming the option."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} {text!r}: write an ISO date or time, such as 2026-06-01T00:00") from None
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def select_windows(project: ProjectExport, start: str, end: str, now: datetime) -> list[Window]:
    """The project's windows between two moments.

    Raises:
        ValueError: the moments are not on the frequency's grid, in the wrong order, before the project's
            start, or not over yet.
    """
    first, last = parse_moment(start, "--from"), parse_moment(end, "--to")
    frequency = project.frequency
    for option, moment in (("--from", first), ("--to", last)):
        if frequency.floor(moment) != moment:
            below, above = frequency.floor(moment), frequency.ceil(moment)
            raise ValueError(
                f"{option} {iso(moment)} cuts a window that is {frequency.value}; "
                f"use {iso(below)} or {iso(above)}"
            )
    if first >= last:
        raise ValueError(f"--from {iso(first)} is not before --to {iso(last)}")
    if first < project.start:
        raise ValueError(f"--from {iso(first)} lies before the project's start {iso(project.start)}")
    if last > now:
        closed = frequency.floor(now)
        raise ValueError(f"--to {iso(last)} lies in the future; the last closed window ends {iso(closed)}")
    return list(frequency.windows(first, last))


def select_tables(project: ProjectExport, names: Sequence[str] | None) -> list[Table]:
    """The project's tables of those names, or all. Raises ValueError for a table it does not export."""
    known = [table.name for table in project.tables]
    for name in names or []:
        if name not in known:
            raise ValueError(f"--table {name!r}: project {project.project_id!r} exports {', '.join(known)}")
    return [table for table in project.tables if not names or table.name in names]


def run_windows(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    project: ProjectExport,
    tables: Sequence[Table],
    windows: Sequence[Window],
    windows_per_run: int,
) -> RunReport:
    """Materialize windows, oldest first, in runs of at most `windows_per_run`; sum up what they recorded.

    A run that fails for what every window would meet, such as a bucket that refuses, is the last one.
    """
    started = time.monotonic()
    report = RunReport(project.project_id, len(windows))
    for first, last in consecutive(windows, windows_per_run):
        shared_reason = _run(defs, instance, project, tables, first, last, report)
        if shared_reason:
            report.left_out = sum(window.start > last.start for window in windows)
            report.left_out_reason = shared_reason if report.left_out else ""
            break
    report.duration_s = round(time.monotonic() - started, 3)
    return report


def _run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    project: ProjectExport,
    tables: Sequence[Table],
    first: Window,
    last: Window,
    report: RunReport,
) -> str | None:
    """Add what a run did to the report; returns why it failed if every window would fail alike."""
    key = project.frequency.key
    bounds = {RANGE_START_TAG: key(first), RANGE_END_TAG: key(last)}
    try:
        result = defs.resolve_job_def(job_name(project.frequency)).execute_in_process(
            instance=instance,
            asset_selection=[asset_key(project, table) for table in tables],
            tags={PROJECT_TAG: safe_name(project.project_id), **bounds},
            # The bar and our own log lines say it; Dagster's console log would say it again.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    except dg.DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None
    finished: dict[str, int] = {}
    shared_reason: str | None = None
    for event in result.all_events:
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            file = manifest_entry(materialization)
            if file is not None:
                report.objects.append(file)
                report.rows += file.row_count
                report.bytes += file.size_bytes
            partition = materialization.partition or ""
            finished[partition] = finished.get(partition, 0) + 1
        if event.is_step_failure:
            report.failures.append(failure_message(event))
            shared_reason = next(filter(meets_every_window, failure_reasons(event)), shared_reason)
    report.exported_windows += sum(count == len(tables) for count in finished.values())
    return shared_reason
