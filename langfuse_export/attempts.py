"""Every attempt to export a window, from Dagster's event log: those that succeeded and those that did not."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Protocol

import dagster as dg

from langfuse_export.manifest import ManifestFile
from langfuse_export.metadata import FAILURE_REASONS, manifest_entry
from langfuse_export.recorded_tables import RecordedTable
from langfuse_export.runs import run_mode
from langfuse_export.tables import ALL_TABLES
from langfuse_export.windows import Window, window_of_key

_PAGE = 1000
# Variables of one statement; SQLite takes 32 766. Windows of a longer time are chosen as they are read.
_MOST_KEYS = 30_000
_LONGEST_RUN = timedelta(days=1)

_OUTCOMES = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "cancelled",
    dg.DagsterRunStatus.CANCELING: "cancelled",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.STARTING: "queued",
    dg.DagsterRunStatus.QUEUED: "queued",
    dg.DagsterRunStatus.NOT_STARTED: "queued",
}
_BAD_ENDS = {
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
}
_ONE = f"(?:{'|'.join(ALL_TABLES)})"
# What a failed window says of its tables: those of which it says the same, and that.
_TABLES = re.compile(rf"(?:^|; )({_ONE}(?:, {_ONE})*): ")


class Fetch(Protocol):
    """A method of the instance that reads events of an asset, a page at a time."""

    def __call__(
        self, records_filter: dg.AssetRecordsFilter, limit: int, cursor: str | None
    ) -> dg.EventRecordsResult: ...


@dataclass(frozen=True)
class Attempt:
    """One attempt of one table of one window.

    Attributes:
        at: when it ended; of one that has not, when it was planned. UTC.
        outcome: exported, failed, retried (failed, and the run tried again), cancelled, running or queued.
        reason: why it failed.
        file: the object, if it was exported.
        revision: the window's revision that the object belongs to.
    """

    project: str
    table: str
    window: Window
    at: datetime
    run_id: str
    mode: str | None
    outcome: str
    reason: str | None = None
    file: ManifestFile | None = None
    revision: int | None = None


def attempts_of_table(
    instance: dg.DagsterInstance, table: RecordedTable, keys: Sequence[str] | None, limit: int
) -> list[Attempt]:
    """The newest attempts of a table, newest first.

    Args:
        instance: the Dagster instance.
        table: the table.
        keys: only windows of these partition keys, of whatever frequency; None for all.
        limit: attempts at most.
    """
    reader = _Reader(instance, table, keys)
    exported = list(islice(reader.exported(), limit))
    # What was planned long before the oldest of them would not be among the newest either.
    since = exported[-1].at - _LONGEST_RUN if len(exported) == limit else None
    done = {(attempt.run_id, attempt.window) for attempt in exported}
    others = islice(reader.unfinished(done, since), limit)
    return sorted([*exported, *others], key=lambda attempt: attempt.at, reverse=True)[:limit]


class _Reader:
    """The events of one table."""

    def __init__(
        self, instance: dg.DagsterInstance, table: RecordedTable, keys: Sequence[str] | None
    ) -> None:
        self._instance = instance
        self._table = table
        self._keys = frozenset(keys) if keys is not None and len(keys) > _MOST_KEYS else None
        self._filter = dg.AssetRecordsFilter(table.asset, None if self._keys else keys)
        self._runs: dict[str, _Run | None] = {}

    def exported(self) -> Iterator[Attempt]:
        """Recorded objects, newest first."""
        for record in self._pages(self._instance.fetch_materializations):
            event = record.asset_materialization
            file = manifest_entry(event) if event else None
            window = window_of_key(record.partition_key or "")
            if event is None or file is None or window is None:
                continue  # of somebody else
            mode, revision = event.metadata.get("mode"), event.metadata.get("revision")
            yield self._attempt(
                window,
                record,
                "exported",
                mode=str(mode.value) if mode else None,
                file=file,
                revision=int(str(revision.value)) if revision else None,
            )

    def unfinished(self, done: set[tuple[str, Window]], since: datetime | None) -> Iterator[Attempt]:
        """What runs intended and did not record, and attempts that they repeated; newest plan first."""
        for record in self._pages(self._instance.fetch_planned_materializations):
            if since is not None and record.timestamp < since.timestamp():
                return
            window, run = window_of_key(record.partition_key or ""), self._run(record.run_id)
            if window is None or run is None:
                continue
            for at, reason in run.retries(window, self._table.name):
                yield self._attempt(window, record, "retried", at=at, mode=run.mode, reason=reason)
            is_done = (record.run_id, window) in done or run.outcome is None or self._is_recorded(record)
            if not is_done:
                at, outcome, reason = run.end(window, self._table.name)
                yield self._attempt(window, record, outcome, at=at, mode=run.mode, reason=reason)

    def _is_recorded(self, planned: dg.EventLogRecord) -> bool:
        """Whether the run recorded the window, however long ago."""
        partitions = [planned.partition_key or ""]
        records = self._instance.fetch_materializations(
            dg.AssetRecordsFilter(self._table.asset, partitions, after_storage_id=planned.storage_id),
            limit=_PAGE,
        ).records
        return any(record.run_id == planned.run_id for record in records)

    def _attempt(
        self,
        window: Window,
        record: dg.EventLogRecord,
        outcome: str,
        *,
        at: datetime | None = None,
        mode: str | None = None,
        reason: str | None = None,
        file: ManifestFile | None = None,
        revision: int | None = None,
    ) -> Attempt:
        return Attempt(
            project=self._table.project_id,
            table=self._table.name,
            window=window,
            at=at or datetime.fromtimestamp(record.timestamp, UTC),
            run_id=record.run_id,
            mode=mode,
            outcome=outcome,
            reason=reason,
            file=file,
            revision=revision,
        )

    def _pages(self, fetch: Fetch) -> Iterator[dg.EventLogRecord]:
        cursor = None
        while True:
            page = fetch(self._filter, _PAGE, cursor)
            for record in page.records:
                if self._keys is None or record.partition_key in self._keys:
                    yield record
            if not page.has_more:
                return
            cursor = page.cursor

    def _run(self, run_id: str) -> "_Run | None":
        if run_id not in self._runs:
            run = self._instance.get_run_by_id(run_id)
            self._runs[run_id] = _Run(self._instance, run) if run else None
        return self._runs[run_id]


class _Run:
    """What became of a run as a whole."""

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        self._instance = instance
        self._run = run
        self.outcome = _OUTCOMES.get(run.status)

    @cached_property
    def mode(self) -> str:
        """As its materializations say it."""
        return run_mode(self._instance, self._run)

    def retries(self, window: Window, table: str) -> Iterator[tuple[datetime, str]]:
        """When and why an attempt of the window failed and was repeated by the same run."""
        for event in self._bad_ends:
            if _type(event) is dg.DagsterEventType.STEP_UP_FOR_RETRY:
                reason = _reason(failure_message(event.get_dagster_event()), window, table)
                if reason is not None:
                    yield _time(event), reason

    def end(self, window: Window, table: str) -> tuple[datetime | None, str, str | None]:
        """When, how and why a window that was not recorded ended."""
        if self.outcome not in ("failed", "cancelled"):
            return None, self.outcome or "", None
        ends = [e for e in self._bad_ends if _type(e) is not dg.DagsterEventType.STEP_UP_FOR_RETRY]
        if not ends:
            return None, self.outcome, None
        first, last = failure_message(ends[0].get_dagster_event()), _time(ends[-1])
        if self.outcome == "cancelled":
            return last, "cancelled", None
        reason = _reason(first, window, table)
        if reason is None and _type(ends[0]) is dg.DagsterEventType.STEP_FAILURE:
            return last, "not_tried", f"the run had stopped: {first}"
        return last, "failed", reason or first

    @cached_property
    def _bad_ends(self) -> list[dg.EventLogEntry]:
        return list(self._instance.all_logs(self._run.run_id, of_type=_BAD_ENDS))


def _type(event: dg.EventLogEntry) -> dg.DagsterEventType:
    return event.get_dagster_event().event_type


def _time(event: dg.EventLogEntry) -> datetime:
    return datetime.fromtimestamp(event.timestamp, UTC)


def _reason(message: str, window: Window, table: str) -> str | None:
    """What a failure says of one table of one window, None if it does not mention the window."""
    for line in message.splitlines():
        _, found, details = line.partition(f"{window}: ")
        if found:
            parts = _TABLES.split(details)
            said = zip(parts[1::2], parts[2::2], strict=True)
            return next((text for tables, text in said if table in tables.split(", ")), details)
    # An exception names a window that failed as a whole in its notes, which follow its message.
    return message.splitlines()[0] if str(window) in message else None


def failure_message(event: dg.DagsterEvent) -> str:
    """What went wrong in a step or a run, without Dagster's words around it."""
    error = None
    if event.event_type is dg.DagsterEventType.STEP_FAILURE:
        failure = event.step_failure_data
        if failure.user_failure_data and failure.user_failure_data.description:
            return failure.user_failure_data.description
        error = failure.error
    elif event.event_type is dg.DagsterEventType.STEP_UP_FOR_RETRY:
        error = event.step_retry_data.error
    while error is not None and error.cause is not None and _is_dagsters(error.cls_name or ""):
        error = error.cause
    return error.message.strip() if error else event.message or "the run failed"


def failure_reasons(event: dg.DagsterEvent) -> list[str]:
    """The reasons of a failed step, as metrics call them; none if it failed outside of our code."""
    data = event.step_failure_data.user_failure_data
    reasons = data.metadata.get(FAILURE_REASONS) if data else None
    found = reasons.value if isinstance(reasons, dg.JsonMetadataValue) else None
    return [str(reason) for reason in found or ()]


def _is_dagsters(class_name: str) -> bool:
    return class_name.startswith("Dagster") or class_name == dg.RetryRequested.__name__
