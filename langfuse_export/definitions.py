"""The Dagster code location: settings -> catalog -> assets, jobs, schedules, resources.

A deployment whose LANGFUSE_WORKER_ROLE leaves exports out gets a location without anything in it.
"""

import dagster as dg

from langfuse_export.build import build_defs
from langfuse_export.catalog import load_catalog
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_worker.logs import configure_logging
from langfuse_worker.settings import settings


@dg.definitions
def defs() -> dg.Definitions:
    """What this deployment exports."""
    config = settings()
    configure_logging(config.log_level)
    if not config.worker_role.runs_export:
        return dg.Definitions()
    return build_defs(
        catalog=load_catalog(config),
        options=ExportOptions.from_settings(config),
        resources=ExportResources.from_settings(config),
    )
