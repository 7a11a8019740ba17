"""`langfuse-worker export run | status | resume | history | check | schema`."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from langfuse_export.build import build_defs
from langfuse_export.catalog import Catalog, CatalogError, load_catalog
from langfuse_export.catalog.model import CatalogModel
from langfuse_export.commands.check import Finding, check_deployment
from langfuse_export.commands.history import (
    Period,
    Selection,
    attempts_as_json,
    attempts_table,
    costs_of,
    failures_of,
)
from langfuse_export.commands.progress import WindowProgress
from langfuse_export.commands.run import RunReport, run_windows, select_tables, select_windows
from langfuse_export.commands.status import TableStatus, table_statuses
from langfuse_export.health.recorder import resume_project
from langfuse_export.instance import open_instance
from langfuse_export.notify.owners import forget_notification
from langfuse_export.project import ProjectExport
from langfuse_export.recorded_tables import recorded_tables
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_worker.console import err, fail, out, print_whole
from langfuse_worker.logs import configure_logging
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings, settings

app = typer.Typer(
    help="Export windows, see how far exports are, check the configuration.", no_args_is_help=True
)

_READING = "reading what Dagster has recorded"

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]


@app.command()
def run(
    project: Annotated[str, typer.Option(help="Project id.")],
    start: Annotated[str, typer.Option("--from", help="First window's start, UTC: 2026-06-01T00:00")],
    end: Annotated[str, typer.Option("--to", help="Last window's end, UTC, exclusive: 2026-06-02T00:00")],
    table: Annotated[list[str] | None, typer.Option(help="Only this table; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Export windows of a project now, through the Dagster assets; the UI shows them afterwards.

    Exit code 0 when every window was exported, 1 when one failed, 2 when an argument is wrong. After a
    failure that every window would meet, such as a bucket that refuses, windows of later runs are left out.

    Example: langfuse-worker export run --project support-bot --from 2026-06-01T00:00 --to 2026-06-02T00:00
    """
    config, catalog = _load()
    try:
        export = catalog.project(project)
        windows = select_windows(export, start, end, datetime.now(UTC))
        tables = select_tables(export, table)
    except (CatalogError, ValueError) as error:
        fail(str(error), code=2)
    configure_logging("error" if err.is_terminal else config.log_level)
    with open_instance() as instance, WindowProgress(len(windows)) as progress:
        resources = ExportResources.from_settings(config, progress)
        options = ExportOptions.from_settings(config)
        defs = build_defs(catalog=catalog, options=options, resources=resources)
        per_run = options.windows_per_run_of(export.frequency)
        report = run_windows(defs, instance, export, tables, windows, per_run)
    _print_report(report, as_json)
    sys.exit(0 if not report.failures else 1)


@app.command()
def status(as_json: Json = False) -> None:
    """Show how far each table of each project has been exported, as the Dagster instance recorded it.

    Exit code 0, or 2 when the catalog is wrong.

    Example: langfuse-worker export status --json
    """
    _, catalog = _load()
    with err.status(_READING), open_instance() as instance:
        rows = table_statuses(instance, catalog, datetime.now(UTC))
    if as_json:
        print(json.dumps([row.as_json() for row in rows], indent=2))
    elif rows:
        print_whole(_status_table(rows))
        for trouble in dict.fromkeys(row.trouble for row in rows if row.trouble):
            out.print(trouble, style="yellow", markup=False, soft_wrap=True)
    else:
        out.print("No projects: the catalog lists none, or ClickHouse has no rows.")
    for left_out in catalog.rejections:
        text = f"{left_out.project_id} is left out: {left_out.error}"
        err.print(text, style="red", markup=False, soft_wrap=True)


@app.command()
def resume(
    projects: Annotated[list[str] | None, typer.Argument(help="Project ids.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every project that is in trouble.")] = False,
) -> None:
    """Try projects again now that are stopped or back off, and forget how often they have failed.

    Dagster's daemon asks for one window within a minute; when that succeeds, everything that waited follows.

    Exit code 0, also when a project is in no trouble; 2 when one is not in the catalog.

    Example: langfuse-worker export resume support-bot
    """
    if bool(projects) == every:
        fail("name projects, or say --all", code=2)
    config, catalog = _load()
    try:
        exports = catalog.projects if every else [catalog.project(project) for project in projects or ()]
    except CatalogError as error:
        fail(str(error), code=2)
    with open_instance() as instance:
        resumed = {e.project_id for e in exports if resume_project(instance, e.project_id, datetime.now(UTC))}
    for export in exports:
        if export.project_id in resumed:
            _forget_notification(config, export)
            out.print(f"{export.project_id} is tried again within a minute.", markup=False)
        elif not every:
            out.print(f"{export.project_id} is in no trouble; there is nothing to resume.", markup=False)
    if every and not resumed:
        out.print("No project is in trouble; there is nothing to resume.")


def _forget_notification(config: Settings, export: ProjectExport) -> None:
    if export.in_postgres and config.database_url:
        forget_notification(Database(config.database_url), export.project_id)


@app.command()
def history(
    project: Annotated[str | None, typer.Option(help="Only this project id.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; repeatable.")] = None,
    window: Annotated[str | None, typer.Option(help="Only the window that holds this moment, UTC.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Windows from this moment on, UTC.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Windows before this moment, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Attempts at most, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """Show every attempt to export windows, newest first: outcome, object, and cost on ClickHouse.

    A window that was exported again is there again. A project or table that has left the catalog is there
    when --project names the project. Costs come from system.query_log, as long as ClickHouse
    keeps it and lets this user read it.

    Exit code 0, or 2 when an argument is wrong.

    Example: langfuse-worker export history --project support-bot --window 2026-06-01T12:00 --json
    """
    config, catalog = _load()
    with err.status(_READING), open_instance() as instance:
        try:
            period = Period.of(window, start, end, datetime.now(UTC))
            recorded = recorded_tables(instance, catalog, project)
            selection = Selection(recorded, table or (), period)
        except (CatalogError, ValueError) as error:
            fail(str(error), code=2)
        attempts = selection.attempts(instance, limit)
    with err.status("asking ClickHouse what they cost"):
        costs = costs_of(attempts, config)
    if as_json:
        print(json.dumps(attempts_as_json(attempts, costs), indent=2))
        return
    if attempts:
        shown, without = attempts_table(attempts, costs, out.width if out.is_terminal else None)
        print_whole(shown)
        if without:
            out.print(f"not shown, for want of width: {', '.join(without)}; see --json", soft_wrap=True)
    else:
        out.print("Nothing has been exported or tried.")
    for line in failures_of(attempts):
        out.print(line, markup=False, soft_wrap=True)
    if costs.unavailable:
        err.print(f"no costs: {costs.unavailable}", style="yellow", markup=False, soft_wrap=True)


@app.command()
def check(as_json: Json = False) -> None:
    """Validate the catalog, and try the source and every destination with a small query and a small object.

    Exit code 0 when everything works, 1 when a part does not answer, 2 when the catalog is wrong.

    Example: langfuse-worker export check
    """
    config, catalog = _load()
    with err.status("trying the source and every destination"):
        findings = check_deployment(config, catalog)
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        out.print(_findings_table(findings))
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option(help="File to write; stdout by default.")] = None,
) -> None:
    """Print the JSON schema of exports.yaml, for editors.

    Example: langfuse-worker export schema --output exports.schema.json
    """
    text = json.dumps(CatalogModel.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output:
        output.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)


def _load() -> tuple[Settings, Catalog]:
    config = settings()
    if not config.worker_role.runs_export:
        fail(f"LANGFUSE_WORKER_ROLE={config.worker_role.value}: this deployment does not export", code=2)
    configure_logging(config.log_level)
    try:
        return config, load_catalog(config)
    except CatalogError as error:
        fail(str(error), code=2)


def _print_report(report: RunReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
        return
    for failure in report.failures:
        err.print(failure, style="red", markup=False, soft_wrap=True)
    if report.left_out:
        text = f"{report.left_out} windows left out: every one would fail alike ({report.left_out_reason})"
        err.print(text, style="red", markup=False, soft_wrap=True)
    out.print(
        f"{report.exported_windows} of {report.windows} windows exported: "
        f"{report.rows:,} rows, {report.bytes / 1e6:,.1f} MB in {report.duration_s:.1f} s",
        markup=False,
    )


def _status_table(rows: list[TableStatus]) -> RichTable:
    table = RichTable("Project", "Table", "Up to (UTC)", "Lag", "Rows", "Windows", "Failed", box=None)
    for row in rows:
        failed = f"[red]{row.failed_windows}[/red]" if row.failed_windows else "0"
        table.add_row(
            escape(row.project),
            row.table,
            row.last_window[:16].replace("T", " ") if row.last_window else "-",
            row.lag_text,
            f"{row.rows:,}" if row.rows is not None else "-",
            f"{row.exported_windows:,}",
            failed,
        )
    return table


def _findings_table(findings: list[Finding]) -> RichTable:
    table = RichTable("", box=None, pad_edge=False)
    table.add_column("What", no_wrap=True)
    table.add_column("Result", overflow="fold")
    for finding in findings:
        outcome = "[green]ok[/green]" if finding.ok else "[red]fail[/red]"
        table.add_row(outcome, escape(finding.what), escape(finding.result))
    return table
