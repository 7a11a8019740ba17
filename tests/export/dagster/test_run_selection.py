"""Which projects a run needs: those whose tables it has selected, and all where that is not certain."""

import dagster as dg
import pytest

from langfuse_export.naming import asset_key, job_name
from langfuse_export.project import ProjectExport
from langfuse_export.run_process import RunSelection, executed_selection
from langfuse_export.windows import Frequency
from tests.export.dagster.deployment import Deployment

HOURLY, DAILY = job_name(Frequency.HOURLY), job_name(Frequency.DAILY)


@pytest.fixture
def projects(deployment: Deployment) -> list[ProjectExport]:
    """Two that are exported every hour and two every day."""
    hourly = [deployment.project(project) for project in ("h1", "h2")]
    return [*hourly, *(deployment.project(project, frequency=Frequency.DAILY) for project in ("d1", "d2"))]


def test_a_run_of_some_tables_needs_their_projects(projects: list[ProjectExport]) -> None:
    h1, h2, d1, _ = projects
    last, first = asset_key(h2, h2.tables[-1]), asset_key(h1, h1.tables[0])

    assert RunSelection(HOURLY, frozenset([last])).projects(projects) == [h2]
    assert RunSelection(HOURLY, frozenset([last, first])).projects(projects) == [h1, h2]
    # What the UI launches has Dagster's own job, whatever the frequency.
    assert RunSelection("__ASSET_JOB", frozenset([asset_key(d1, d1.tables[0])])).projects(projects) == [d1]


def test_a_run_needs_all_projects_where_it_is_not_certain(projects: list[ProjectExport]) -> None:
    known = asset_key(projects[0], projects[0].tables[0])
    unknown = dg.AssetKey(["langfuse", "gone", "traces"])

    for selection in (
        RunSelection(HOURLY),
        RunSelection(HOURLY, frozenset([unknown])),
        RunSelection(HOURLY, frozenset([known, unknown])),
        RunSelection(DAILY, frozenset([known])),
        RunSelection("another_job", frozenset([known])),
    ):
        assert selection.projects(projects) == projects


def test_a_process_that_executes_no_run_has_no_selection() -> None:
    assert executed_selection() is None
