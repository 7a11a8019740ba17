"""Tries the parts of a deployment: the source with a small query, each destination with a small object."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from langfuse_export import sql
from langfuse_export.catalog import Catalog
from langfuse_export.doctor.tables import projects_without_rows
from langfuse_export.project import ProjectExport
from langfuse_export.tables import NO_PRICES, Table
from langfuse_export.windows import Frequency
from langfuse_export.write_back import unwritable_columns
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError, Query, QueryComment, connect, shown_url
from langfuse_worker.doctor import Status
from langfuse_worker.doctor.store import try_store
from langfuse_worker.postgres import Database, DatabaseError
from langfuse_worker.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    what: str
    ok: bool
    result: str


def check_deployment(settings: Settings, catalog: Catalog) -> list[Finding]:
    """Try the source, every table that is exported, and every destination."""
    postgres = list(_postgres(settings, catalog))
    source = connect(settings)
    try:
        with source.hold():
            return [*postgres, *_findings(settings, source, catalog)]
    except ClickHouseError as error:
        return [*postgres, Finding("source", False, str(error))]
    finally:
        source.close()


def _postgres(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    if settings.database_url is None:
        return
    database = Database(settings.database_url)
    try:
        unwritable = unwritable_columns(database)
    except DatabaseError as error:
        yield Finding("postgres", False, str(error))
        return
    if unwritable:
        columns = ", ".join(unwritable)
        yield Finding("postgres", False, f"GRANT UPDATE ({columns}) ON blob_storage_integrations is missing")
    else:
        count = sum(project.in_postgres for project in catalog.projects)
        yield Finding(
            "postgres", True, f"{count} projects in {database.shown}; their progress can be written"
        )
    for rejection in catalog.rejections:
        yield Finding(f"{rejection.project_id}: row", False, rejection.error)


def _findings(settings: Settings, source: ClickHouse, catalog: Catalog) -> Iterator[Finding]:
    count = len(catalog.projects)
    none = 'no projects; nothing is exported: list one, or see whether ClickHouse has rows for `id: "*"`'
    yield Finding("catalog", count > 0, f"{count} projects" if count else none)
    version = source.rows(Query("SELECT version()", QueryComment(purpose="check")))[0][0]
    yield Finding("source", True, f"ClickHouse {version} at {shown_url(settings.export_source_url)}")
    if without_rows := projects_without_rows(source, catalog.projects):
        yield Finding("projects", True, f"{without_rows}: correct the id, unless a project is new")
    for project in catalog.projects:
        for table in project.tables:
            yield _table(source, project, table)
    for name, config in {p.destination_name: p.destination for p in catalog.projects}.items():
        yield _destination(name, config)


def _table(source: ClickHouse, project: ProjectExport, table: Table) -> Finding:
    what = f"{project.project_id}: {table.name}"
    window = Frequency.HOURLY.newest_closed(datetime.now(UTC))
    counting = Query(
        sql.summary(table),
        QueryComment(purpose="check", project=project.project_id, table=table.name),
        sql.parameters(table, project.project_id, window),
        sql.FINAL_SETTINGS,
    )
    # The file's own query without running it: are all its columns there, and all patterns valid?
    described = table.priced(NO_PRICES)
    describing = replace(
        counting,
        sql=f"DESCRIBE TABLE ({project.encoding.sql(described)})",
        parameters=sql.parameters(described, project.project_id, window),
        secrets=sql.secrets(described),
        lists=sql.lists(described),
    )
    limited = source.with_limits(project.limits)
    try:
        [(rows, *_)] = limited.rows(counting)
        limited.rows(describing)
    except ClickHouseError as error:
        return Finding(what, False, str(error))
    chosen = "".join(f", {name} {' or '.join(values)}" for name, values in table.chosen_rows.items())
    skips = "; no object without rows" if project.skip_empty else ""
    return Finding(what, True, f"{rows} rows in the last closed hour{chosen}{skips}")


def _destination(name: str, config: StoreConfig) -> Finding:
    what = f"destination {name}"
    for tried in try_store(what, config):
        if tried.status is Status.PROBLEM:
            return Finding(what, False, f"{tried.result}; {tried.remedy}")
    return Finding(what, True, f"wrote, read and deleted an object in {config.url}")
