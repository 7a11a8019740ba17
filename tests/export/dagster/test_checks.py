"""Asset checks, as part of a run and by themselves."""

from collections import Counter
from datetime import timedelta

import dagster as dg
import pytest

from langfuse_export.checks import MANIFEST_CHECK, ROWS_CHECK
from langfuse_export.naming import asset_key
from langfuse_export.tables import TABLES
from langfuse_worker.blobstore import BlobStore
from tests.export.dagster.deployment import START, Deployment, hour
from tests.rows import trace

LAST = "2026-06-01T01"


def _export_two_hours(deployment: Deployment) -> dg.ExecuteInProcessResult:
    """One trace in the first hour, two in the second."""
    deployment.insert("traces", trace("a", START), trace("b", START + timedelta(hours=1)))
    deployment.insert("traces", trace("c", START + timedelta(hours=1, minutes=59)))
    return deployment.run("2026-06-01T00", LAST)


def _execute_alone(deployment: Deployment, name: str, table: str = "traces") -> dg.AssetCheckEvaluation:
    """What the UI's button `Execute` on a check of a table does."""
    check = dg.AssetCheckKey(asset_key(deployment.first, TABLES[table]), name)
    job = deployment.defs.resolve_implicit_global_asset_job_def()
    subset = job.get_subset(asset_selection=set(), asset_check_selection={check})
    [evaluation] = subset.execute_in_process(instance=deployment.instance).get_asset_check_evaluations()
    return evaluation


def test_the_checks_of_a_run_pass_and_carry_its_numbers(deployment: Deployment) -> None:
    result = _export_two_hours(deployment)

    evaluations = {(e.asset_key.path[-1], e.check_name): e for e in result.get_asset_check_evaluations()}
    assert len(evaluations) == 12
    assert all(evaluation.passed for evaluation in evaluations.values())
    rows = evaluations["traces", ROWS_CHECK].metadata
    assert (rows["rows"].value, rows["source_rows"].value, rows["windows"].value) == (3, 3, 2)


def test_a_run_reads_each_manifest_once_for_the_checks_of_all_tables(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _export_two_hours(deployment)
    manifests = [deployment.first.manifest_key(hour(number)) for number in (0, 1)]
    read: list[str] = []
    reads = BlobStore.read
    monkeypatch.setattr(BlobStore, "read", lambda store, key: read.append(key) or reads(store, key))

    _export_two_hours(deployment)

    # And once to find out the revision that an export replaces.
    assert Counter(key for key in read if key in manifests) == dict.fromkeys(manifests, 2)


def test_windows_without_rows_and_objects_pass_their_checks(deployment: Deployment) -> None:
    deployment.projects = [deployment.project(skip_empty=True)]

    result = _export_two_hours(deployment)

    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == 12
    assert all(evaluation.passed for evaluation in evaluations)
    materializations = [event.materialization for event in result.get_asset_materialization_events()]
    with_object = [m.asset_key.path[-1] for m in materializations if "dagster/uri" in m.metadata]
    assert (len(materializations), with_object) == (8, ["traces", "traces"])
    alone = _execute_alone(deployment, MANIFEST_CHECK, "scores")
    assert alone.passed
    assert alone.metadata["windows"].value == 1


def test_a_check_by_itself_looks_at_the_newest_window(deployment: Deployment) -> None:
    _export_two_hours(deployment)

    evaluation = _execute_alone(deployment, ROWS_CHECK)

    assert evaluation.passed
    assert (evaluation.metadata["windows"].value, evaluation.metadata["rows"].value) == (1, 2)


def test_rows_that_arrived_after_the_export_fail_the_check_of_rows(deployment: Deployment) -> None:
    _export_two_hours(deployment)
    deployment.insert("traces", trace("late", START + timedelta(hours=1, minutes=30)))

    evaluation = _execute_alone(deployment, ROWS_CHECK)

    assert not evaluation.passed
    assert evaluation.metadata["source_rows"].value == 3
    assert evaluation.metadata["differing_windows"].value == [str(hour(1))]


def test_a_manifest_that_somebody_removed_fails_its_check(deployment: Deployment) -> None:
    _export_two_hours(deployment)
    assert _execute_alone(deployment, MANIFEST_CHECK).passed
    blobs = deployment.settings.home / "blobs"
    (blobs / deployment.first.manifest_key(hour(1))).unlink()

    evaluation = _execute_alone(deployment, MANIFEST_CHECK)

    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN


def test_checks_of_what_was_never_exported_pass_over_nothing(deployment: Deployment) -> None:
    assert _execute_alone(deployment, ROWS_CHECK).metadata["windows"].value == 0
