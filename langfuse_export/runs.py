"""One Dagster run of a project: its windows one after the other, each recorded as it finishes."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, takewhile
from typing import NoReturn

import dagster as dg
import structlog

from langfuse_export.errors import (
    CancelledError,
    ExportError,
    WindowError,
    is_transient,
    reason_of,
    stops_project,
)
from langfuse_export.exported_table import ExportedTable
from langfuse_export.exporter import WindowExporter, WindowResult
from langfuse_export.health.describe import next_step
from langfuse_export.health.recorder import RunOutcome, record_outcome, tag_failure
from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.history import History, newest_record
from langfuse_export.manifest import ManifestFile
from langfuse_export.metadata import FAILURE_REASONS, manifest_entry, object_uri, window_metadata
from langfuse_export.naming import LATE, MODE_TAG, SCHEDULE_TAG, asset_key
from langfuse_export.prices import AttemptPrices
from langfuse_export.project import ProjectExport
from langfuse_export.read_ahead import CommittedDay, DayRows, read_ahead, waits_for_store_alone
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.side_by_side import side_by_side
from langfuse_export.tables import Table
from langfuse_export.windows import Window
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.dagster_storage.transactions import one_transaction
from langfuse_worker.run_lease import held, renew

log = structlog.get_logger()

# Windows on their way to the store. Some ten requests of each come one after the other, of 20 ms in a bucket.
SIDE_BY_SIDE = 4


class ProjectRun:
    """Exports the run's windows of one project.

    Attributes:
        exported: by table name and window, what this attempt committed or recalled.
        health: the trouble that the project is in after this run, if any.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        project: ProjectExport,
        resources: ExportResources,
        options: ExportOptions,
    ) -> None:
        self._context = context
        self._options = options
        self._project = project
        self._listener = resources.listeners
        self._store = BlobStore(project.destination)
        self._mode = run_mode(context.instance, context.run)
        self._telemetry = resources.telemetry
        self._exporter = WindowExporter(
            source=resources.clickhouse.with_limits(project.limits),
            store=self._store,
            project=project,
            telemetry=resources.telemetry,
            mode=self._mode,
            prices=AttemptPrices(resources.postgres, project.project_id),
            run_id=context.run_id,
            table_concurrency=options.table_concurrency,
            progress=resources.progress,
            part_sizes=History(context.instance).part_sizes(project),
        )
        selected = context.selected_asset_keys
        self._tables = [table for table in project.tables if asset_key(project, table) in selected]
        self.exported: dict[str, dict[Window, ExportedTable]] = {}
        self.health: Health | None = None
        self._outcome = RunOutcome()

    def export_windows(self, retries: dg.RetryPolicy) -> None:
        """Export every window of the run, oldest first.

        A window that fails does not keep the others from being exported, unless they would fail alike.

        Raises:
            dagster.RetryRequested: a transient fault; finished windows are not exported again. An op that has
                a policy of its own would be retried after its run was cancelled, too.
            dagster.Failure: a fault that a retry cannot mend, or the last attempt; the run fails.
        """
        self._listener.run_started(self._project)
        try:
            with held(self._context.instance, self._context.run_id, self._options.run_lease_s):
                failures = self._export_windows()
        except Exception as error:
            failures = [error]
        except BaseException:  # somebody stops the run
            self._listener.run_failed(
                self._project, [CancelledError("the run was cancelled")], retrying=False
            )
            raise
        if failures:
            self._fail(failures, retries)
        self._record_health()
        still_failing = self.health is not None and bool(self.health.windows)
        self._listener.run_finished(self._project, still_failing)

    def recall_health(self) -> None:
        """Take the project's health as it stands."""
        project_id = self._project.project_id
        self.health = HealthStore(self._context.instance).read([project_id]).get(project_id)

    def _export_windows(self) -> list[Exception]:
        failures: list[Exception] = []
        due = list(self._windows())
        self._outcome = RunOutcome([self._project.frequency.key(window) for window in due])
        for _, day in groupby(due, key=lambda window: window.start.date()):
            done = {window: self._done_by_this_run(window) for window in day}
            self._outcome.progressed |= any(done.values())
            with read_ahead(self._exporter, self._tables, done, self._options) as rows:
                self._export_day(done, rows, failures)
            if any(map(stops_project, failures)):
                break
        return failures

    def _export_day(self, done: CommittedDay, rows: DayRows, failures: list[Exception]) -> None:
        """Export a day's windows and record each; what goes wrong is added to `failures`."""
        exporter = self._exporter
        exports = (
            (window, partial(exporter.export, window, tables, known, rows.get(window)))
            for window, tables, known in self._left_to_do(done)
        )
        wanted = takewhile(lambda _: not any(map(stops_project, failures)), exports)
        at_once = SIDE_BY_SIDE if waits_for_store_alone(self._tables, done, rows) else 1
        with closing(side_by_side(wanted, at_once, exporter.cancellation.cancel)) as exported:
            for window, export in exported:
                try:
                    self._finish(window, export)
                except Exception as error:
                    if not isinstance(error, WindowError):  # whose message has it
                        error.add_note(f"{self._project.project_id} {window}")
                    failures.append(error)

    def _left_to_do(
        self, done: CommittedDay
    ) -> Iterator[tuple[Window, list[Table], Mapping[str, ManifestFile]]]:
        """Windows, each with its tables that are not done and the objects that it has of the others."""
        for window, committed in done.items():
            tables = [table for table in self._tables if table.name not in committed]
            if tables:
                yield window, tables, {**self._committed_elsewhere(window), **committed}
            else:
                self._outcome.finished(self._project.frequency.key(window))

    def _finish(self, window: Window, export: Future[WindowResult]) -> None:
        """Record what an export has committed. Raises what it raised."""
        key = self._project.frequency.key(window)
        try:
            result = export.result()
        except WindowError as error:
            self._record(key, window, error.exported, error.revision)
            raise
        self._record(key, window, result.exported, result.revision)
        if result.revision is not None:
            self._listener.window_exported(self._project, window, History(self._context.instance))
        self._outcome.finished(key)

    def _windows(self) -> Iterator[Window]:
        for key in self._context.partition_keys:
            window = self._project.frequency.window_of_key(key)
            if window.start >= self._project.start:
                yield window
                continue
            log.info("blob_export_window_skipped", projectId=self._project.project_id, window=key)
            self._context.log.info(f"{key} lies before the project's start {self._project.start}")

    def recall_newest_windows(self) -> None:
        """Take each table's newest exported window as it stands, and count its rows in ClickHouse now."""
        frequency = self._project.frequency
        for table in self._project.tables:
            done = self._context.instance.get_materialized_partitions(asset_key(self._project, table))
            for window in frequency.windows_of_keys(done)[-1:]:
                for file in self._recorded(window, [table], run_id=None).values():
                    key = self._project.object_key(table, window)
                    uri = self._store.uri(key) if file.has_object else None
                    rows = self._exporter.count(table, window)
                    self.exported[table.name] = {window: ExportedTable(table.name, uri, None, rows, file)}

    def _record(
        self, key: str, window: Window, exported: Mapping[str, ExportedTable], revision: int | None
    ) -> None:
        with one_transaction(self._context.instance, self._context.run_id):
            for name, table in exported.items():
                spec = self._project.table(name)
                metadata = window_metadata(spec, window, table, self._mode, revision)
                self._context.log_event(
                    dg.AssetMaterialization(asset_key(self._project, spec), partition=key, metadata=metadata)
                )
        for name, table in exported.items():
            self.exported.setdefault(name, {})[window] = table
            if self._mode == "steady":
                lag_s = (datetime.now(UTC) - window.end).total_seconds()
                self._telemetry.lag(self._project.project_id, name, lag_s)

    def _done_by_this_run(self, window: Window) -> dict[str, ManifestFile]:
        """Tables that an earlier attempt of this run has committed."""
        if not self._context.retry_number:
            return {}
        return self._recorded(window, self._tables, run_id=self._context.run_id)

    def _committed_elsewhere(self, window: Window) -> dict[str, ManifestFile]:
        """Tables that are not part of this run but of the window's manifest."""
        others = [table for table in self._project.tables if table not in self._tables]
        return self._recorded(window, others, run_id=None)

    def _recorded(self, window: Window, tables: list[Table], run_id: str | None) -> dict[str, ManifestFile]:
        found: dict[str, ManifestFile] = {}
        key = self._project.frequency.key(window)
        for table in tables:
            record = newest_record(self._context.instance, asset_key(self._project, table), key)
            event = record.asset_materialization if record else None
            entry = manifest_entry(event) if event else None
            if not record or not event or not entry or run_id not in (None, record.run_id):
                continue
            # Not one of another bucket, where the project went before its destination changed.
            uri = self._store.uri(self._project.object_key(table, window))
            if not entry.has_object or object_uri(event) == uri:
                found[table.name] = entry
        return found

    def _record_health(self, failures: Sequence[Exception] = ()) -> None:
        outcome = self._outcome
        outcome.errors = list(failures)
        outcome.progressed |= bool(self.exported)
        if len(self._tables) < len(self._project.tables):
            outcome.exported = []  # other tables of these windows may still be missing
        instance, options = self._context.instance, self._options
        self.health = record_outcome(instance, self._project, outcome, options.health, options.now)
        if failures:
            tag_failure(instance, self._context.run_id, outcome, self.health)

    def _fail(self, failures: list[Exception], retries: dg.RetryPolicy) -> NoReturn:
        attempt = self._context.retry_number + 1
        retrying = attempt <= retries.max_retries and any(is_transient(error) for error in failures)
        told: list[Exception] = list(failures)
        if not retrying:
            self._record_health(failures)
            if self.health and self.health.stopped:
                told.insert(0, ExportError(f"Stopped. {next_step(self.health)}"))
        self._listener.run_failed(self._project, told, retrying)
        if retrying:
            delay_s = retries.calculate_delay(attempt)
            renew(self._context.instance, self._context.run_id, delay_s + self._options.run_lease_s)
            raise dg.RetryRequested(retries.max_retries, seconds_to_wait=delay_s) from failures[0]
        raise dg.Failure(
            "\n".join(": ".join([*getattr(error, "__notes__", ()), str(error)]) for error in failures),
            metadata={FAILURE_REASONS: dg.MetadataValue.json(sorted({reason_of(e) for e in failures}))},
        ) from failures[0]


def run_mode(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why a run exports its windows, for metrics, logs and manifests.

    `late` when rows changed after their export, `steady` when a schedule asked for the run, else `catchup`:
    a backfill, or somebody by hand. A retry follows its root run, because tags may be lost on the way.
    """
    root = instance.get_run_by_id(run.root_run_id) if run.root_run_id else None
    tags = {**(root.tags if root else {}), **run.tags}
    if tags.get(MODE_TAG) == LATE:
        return LATE
    return "steady" if SCHEDULE_TAG in tags else "catchup"
