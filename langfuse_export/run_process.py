"""What a process that Dagster has started for one run needs of the code location.

Dagster has such a process load the whole location, twice, and does not tell it for which run. With 500
projects that would be 9 s of CPU, to export one of them. The run is at hand, though: whatever launcher
started the process, Dagster's function that executes the run is among the callers of what loads the location.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from langfuse_export.naming import asset_key, job_name
from langfuse_export.project import ProjectExport

_EXECUTES_A_RUN = "core_execute_run"  # of dagster._grpc.impl


@dataclass(frozen=True)
class RunSelection:
    """What a run executes.

    Attributes:
        job: the name of its job.
        assets: what it exports or checks; empty if it is the whole job.
    """

    job: str
    assets: frozenset[dg.AssetKey] = frozenset()

    def projects(self, projects: Sequence[ProjectExport]) -> Sequence[ProjectExport]:
        """Those of the projects that the run needs: all of them wherever that is not certain."""
        owners = {asset_key(project, table): project for project in projects for table in project.tables}
        if not self.assets or not self.assets <= owners.keys():
            return projects
        ids = {owners[key].project_id for key in self.assets}
        chosen = [project for project in projects if project.project_id in ids]
        jobs = {IMPLICIT_ASSET_JOB_NAME, *(job_name(project.frequency) for project in chosen)}
        return chosen if self.job in jobs else projects


def executed_selection() -> RunSelection | None:
    """The selection of the run that this process executes; None in every other process."""
    frame = inspect.currentframe()
    while frame and frame.f_code.co_name != _EXECUTES_A_RUN:
        frame = frame.f_back
    run = frame.f_locals.get("dagster_run") if frame else None
    if not isinstance(run, dg.DagsterRun):
        return None
    checked = (check.asset_key for check in run.asset_check_selection or ())
    return RunSelection(run.job_name, frozenset(run.asset_selection or ()).union(checked))
