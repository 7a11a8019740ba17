"""The Dagster code location: settings -> catalog -> assets, jobs, schedules, sensors, resources.

A deployment whose LANGFUSE_WORKER_ROLE leaves exports out gets a location without anything in it.
"""

import dagster as dg

from langfuse_export.build import build_defs
from langfuse_export.catalog import load_catalog
from langfuse_export.catalog.postgres import report_rejections
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.sensors.changed_catalog import build_catalog_sensor
from langfuse_export.sensors.cost import build_cost_sensor
from langfuse_worker.logs import configure_logging
from langfuse_worker.postgres import Database
from langfuse_worker.settings import settings


@dg.definitions
def defs() -> dg.Definitions:
    """What this deployment exports."""
    config = settings()
    configure_logging(config.log_level)
    if not config.worker_role.runs_export:
        return dg.Definitions()
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
