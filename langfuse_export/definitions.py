"""The Dagster code location: settings -> catalog -> assets, jobs, schedules, sensors, resources.

A deployment whose LANGFUSE_WORKER_ROLE leaves exports out gets a location without anything in it. The process
of a run gets what the run needs.
"""

from functools import cache

import dagster as dg
import structlog

from langfuse_export.build import build_defs, build_run_defs
from langfuse_export.catalog import load_catalog
from langfuse_export.catalog.postgres import report_rejections
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.run_process import RunSelection, executed_selection
from langfuse_export.sensors.changed_catalog import build_catalog_sensor
from langfuse_export.sensors.cost import build_cost_sensor
from langfuse_worker.logs import configure_logging
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings, settings

log = structlog.get_logger()


@dg.definitions
def defs() -> dg.Definitions:
    """What this deployment exports; in the process of a run, what the run exports."""
    config = settings()
    configure_logging(config.log_level)
    if not config.worker_role.runs_export:
        return dg.Definitions()
    selection = executed_selection()
    return _of_deployment(config) if selection is None else _of_run(selection)


def _of_deployment(config: Settings) -> dg.Definitions:
    catalog = load_catalog(config)
    if config.database_url:
        report_rejections(Database(config.database_url), catalog.rejections)
    options = ExportOptions.from_settings(config)
    exports = build_defs(
        catalog=catalog,
        options=options,
        resources=ExportResources.from_settings(config),
    )
    if config.embedded:
        # It is one process's at a time, so nobody looks for its projects every minute; it keeps no query_log.
        return exports
    sensors = [
        build_catalog_sensor(config, catalog),
        build_cost_sensor(catalog.projects, options),
    ]
    return dg.Definitions.merge(exports, dg.Definitions(sensors=sensors))


@cache  # Dagster loads the location again for what the run has selected of its job.
def _of_run(selection: RunSelection) -> dg.Definitions:
    config = settings()
    catalog = load_catalog(config)
    projects = selection.projects(catalog.projects)
    log.debug("run_definitions_built", projects=len(projects), projectsInCatalog=len(catalog.projects))
    return build_run_defs(
        catalog=catalog,
        projects=projects,
        options=ExportOptions.from_settings(config),
        resources=ExportResources.from_settings(config),
    )
