"""Windows that a command exports in its own process."""

from langfuse_export.commands.run import run_windows
from langfuse_export.tables import TABLES
from tests.export.dagster.deployment import Deployment, hour


def test_windows_between_those_that_are_asked_for_are_left_alone(deployment: Deployment) -> None:
    project = deployment.project(tables=(TABLES["traces"],))
    deployment.projects, windows = [project], [hour(0), hour(2)]

    report = run_windows(deployment.defs, deployment.instance, project, project.tables, windows, 24)

    assert (report.failures, report.exported_windows) == ([], 2)
    keys = [project.object_key(project.tables[0], window) for window in windows]
    assert [file.key for file in report.objects] == keys
    assert deployment.objects() == sorted([*keys, *map(project.manifest_key, windows)])
