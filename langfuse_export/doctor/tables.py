"""What is exported, and whether ClickHouse has it."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from langfuse_export import sql
from langfuse_export.catalog import CatalogError
from langfuse_export.catalog.discovery import query_projects
from langfuse_export.doctor.subject import Subject
from langfuse_export.project import ProjectExport
from langfuse_export.tables import NO_PRICES, Table
from langfuse_export.windows import EPOCH, Frequency
from langfuse_worker.clickhouse import (
    ACCESS_DENIED,
    UNKNOWN_TABLE,
    ClickHouse,
    ClickHouseError,
    Query,
    QueryComment,
)
from langfuse_worker.doctor import Finding, Status, ok, problem, warning
from langfuse_worker.doctor.clickhouse import ask, connected, row_policy

_SHOWN = 5
_ENGINE = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {name:String}"
# But for what replicas put aside as a copy.
_DETACHED = """
SELECT count(), arrayStringConcat(arraySort(groupUniqArray(ifNull(nullIf(reason, ''), 'by hand'))), ', ')
FROM system.detached_parts
WHERE database = currentDatabase() AND table = {name:String}
  AND reason NOT IN ('ignored', 'clone', 'covered-by-broken', 'attaching', 'deleting', 'tmp-fetch')
"""
_ARGUMENTS = re.compile(r"ReplacingMergeTree\(([^)]*)\)")


def check_catalog(subject: Subject) -> Iterator[Finding]:
    """Whether the catalog is right and has projects."""
    try:
        projects = subject.catalog.projects
    except CatalogError as error:
        yield Finding("catalog", Status.PROBLEM, str(error), "correct the catalog", is_setting=True)
        return
    except ClickHouseError as error:
        yield problem("catalog", f"projects cannot be found: {error}", "see clickhouse above")
        return
    paused = sum(not project.enabled for project in projects)
    text = f"{len(projects)} projects, {paused} of them paused"
    if len(projects) == paused:
        yield warning("catalog", text, 'nothing is exported: add a project, or `id: "*"`')
    else:
        yield ok("catalog", text)


def check_projects(subject: Subject) -> Iterator[Finding]:
    """Whether ClickHouse has rows of every project; an id that is misspelt exports empty objects for ever."""
    with connected(subject.connect) as source:
        text = projects_without_rows(source, subject.catalog.projects)
    if text is None:
        yield ok("projects", "ClickHouse has rows of each")
    else:
        yield warning("projects", text, "correct the id; a new project will have its rows later")


def projects_without_rows(source: ClickHouse, projects: Sequence[ProjectExport]) -> str | None:
    """Which projects have no rows in any table that is exported, and which have; None if all have.

    Raises ClickHouseError.
    """
    tables = {table.name: table for project in projects for table in project.tables}
    found = query_projects(source, list(tables.values())) if tables else {}
    lacking = [project.project_id for project in projects if project.project_id not in found]
    if not lacking:
        return None
    return f"ClickHouse has no rows of {_named(lacking)}; it has rows of {_named(list(found))}"


def _named(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(id) for id in ids[:_SHOWN]) or "no project"
    return f"{shown} and {len(ids) - _SHOWN} others" if len(ids) > _SHOWN else shown


def check_tables(subject: Subject) -> Iterator[Finding]:
    """Whether ClickHouse has every table and column that is exported."""
    exported: dict[str, list[Table]] = defaultdict(list)
    for project in subject.catalog.projects:
        for table in project.tables:
            exported[table.name].append(table)
    with connected(subject.connect) as source:
        for tables in exported.values():
            table = _with_columns_of_all(tables)
            found = _table(source, table, subject.settings.clickhouse_db)
            yield found
            if found.status is Status.OK:
                yield from _other_rows(source, table)


def _with_columns_of_all(tables: Sequence[Table]) -> Table:
    """One table with each column that any of them has, unmasked."""
    columns = dict.fromkeys(replace(column, mask=None) for table in tables for column in table.columns)
    return replace(tables[0], columns=tuple(columns))


def _table(source: ClickHouse, table: Table, database: str) -> Finding:
    what = f"table {table.name}"
    # A window without rows: names and rights are looked at, and nothing is read.
    shown = table.priced(NO_PRICES)
    query = Query(
        sql.select(shown),
        QueryComment(purpose="doctor", table=table.name),
        sql.parameters(shown, "", Frequency.HOURLY.window(EPOCH)),
        lists=sql.lists(shown),
    )
    try:
        source.rows(query)
    except ClickHouseError as error:
        remedy = (
            "its columns are not those of Langfuse 4: migrate Langfuse, or leave columns out in the catalog"
        )
        if "t._part" in str(error):
            remedy = f"{database}.{table.source} is a view: exports need the table that Langfuse writes to"
        if error.code == ACCESS_DENIED:
            remedy = f"GRANT SELECT ON {database}.{table.source} to the user of exports"
        if error.code == UNKNOWN_TABLE:
            remedy = f"leave {table.name} out of `tables` in the catalog, or check CLICKHOUSE_DB={database}"
        return problem(what, str(error), remedy)
    return ok(what, f"{database}.{table.source} has the {len(table.columns)} columns")


def _other_rows(source: ClickHouse, table: Table) -> Iterator[Finding]:
    """What makes rows that are exported others than those that Langfuse has; no count tells of it."""
    what = f"table {table.name}"
    [engine] = ask(source, _ENGINE, name=table.source) or [("",)]
    if (arguments := _ARGUMENTS.search(engine[0])) and "is_deleted" not in arguments[1]:
        remedy = "give it the engine of Langfuse's migrations: ReplacingMergeTree(event_ts, is_deleted)"
        yield warning(
            what, f"its engine knows no is_deleted: {arguments[0]}; deleted rows are exported", remedy
        )
    if text := _detached(source, table.source):
        yield warning(what, text, "ALTER TABLE ... ATTACH PART, or DROP DETACHED PART if they are not missed")
    if hidden := row_policy(source, table.source, table.id_column):
        remedy = "if they are missed, CREATE ROW POLICY ... USING 1 TO the user of exports"
        yield warning(what, f"a row policy hides rows from exports, all but those with {hidden}", remedy)


def _detached(source: ClickHouse, table: str) -> str:
    """Which parts of a table ClickHouse has put aside; empty if none, or if this user may not see them."""
    try:
        [(count, reasons)] = ask(source, _DETACHED, name=table)
    except ClickHouseError as error:
        if error.code != ACCESS_DENIED:
            raise
        return ""
    return f"{count} parts are detached ({reasons}): their rows are in no export" if count else ""
