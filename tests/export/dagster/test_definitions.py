"""What the code location holds, by role and catalog."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langfuse_export.naming import LATE, MODE_TAG, asset_key, op_name, safe_name
from langfuse_export.tables import TABLES
from langfuse_worker.settings import SettingsError
from tests.export.dagster.deployment import START, Deployment
from tests.export.location import load_location
from tests.rows import trace

ROOT = Path(__file__).parents[3]


def test_dagster_validates_the_workspace(tmp_path: Path) -> None:
    environment = {**os.environ, "LANGFUSE_HOME": str(tmp_path / "home"), "DAGSTER_HOME": str(tmp_path)}
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "definitions",
        "validate",
        "-w",
        "workspace.yaml",
    ]

    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert "All code locations passed validation" in ended.stderr + ended.stdout


@pytest.mark.parametrize("role", ["all", "export"])
def test_roles_that_export_load_assets_jobs_and_schedules(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    deployment.insert("traces", trace("t", START))
    monkeypatch.setenv("LANGFUSE_WORKER_ROLE", role)

    repository = load_location().get_repository_def()

    assert "export_hourly" in repository.job_names
    assert [schedule.name for schedule in repository.schedule_defs] == ["export_hourly_schedule"]
    assert len(repository.asset_graph.materializable_asset_keys) == 4
    assert repository.schedule_defs[0].default_status is dg.DefaultScheduleStatus.RUNNING


def test_the_columns_of_an_asset_are_explained(deployment: Deployment) -> None:
    key = asset_key(deployment.first, TABLES["scores"])

    schema = deployment.defs.resolve_assets_def(key).metadata_by_key[key]["dagster/column_schema"].schema

    assert [column.name for column in schema.columns] == TABLES["scores"].column_names
    [source] = [column for column in schema.columns if column.name == "source"]
    assert source.description == "`API`, `EVAL` or `ANNOTATION`."


def test_the_ingestion_role_has_nothing_that_exports(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.insert("traces", trace("t", START))
    monkeypatch.setenv("LANGFUSE_WORKER_ROLE", "ingestion")

    repository = load_location().get_repository_def()

    assert list(repository.job_names) == []
    assert list(repository.schedule_defs) == []
    assert list(repository.asset_graph.get_all_asset_keys()) == []


def test_a_wrong_setting_keeps_the_location_from_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_WORKER_ROLE", "exports")
    with pytest.raises(SettingsError, match="LANGFUSE_WORKER_ROLE='exports'"):
        load_location()


def test_an_empty_engine_gives_a_location_without_projects(deployment: Deployment) -> None:
    assert list(load_location().get_repository_def().asset_graph.get_all_asset_keys()) == []


def test_two_hundred_projects_share_one_job_and_one_schedule(deployment: Deployment) -> None:
    deployment.projects = [deployment.project(f"project-{n}") for n in range(200)]

    repository = deployment.defs.get_repository_def()

    assert len(repository.asset_graph.materializable_asset_keys) == 800
    assert len(repository.schedule_defs) == 1
    assert [name for name in repository.job_names if not name.startswith("__")] == ["export_hourly"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=2, unique=True))
def test_any_project_id_has_names_of_its_own_that_dagster_takes(ids: list[str]) -> None:
    names = {safe_name(id) for id in ids}
    assert len(names) == len(ids)
    assert all(name.isascii() and name.replace("_", "a").isalnum() for name in names)


def test_projects_with_odd_ids_load_side_by_side(deployment: Deployment) -> None:
    base = deployment.project()
    ids = ["support-bot", "support_bot", "héllo wörld", "a.b", "日本"]
    ids += ["x" * 63, "x" * 64, "x" * 300, "a_" * 30]
    deployment.projects = [replace(base, project_id=id, name=id) for id in ids]

    graph = deployment.defs.resolve_asset_graph()

    assert len(graph.materializable_asset_keys) == 36
    assert len({op_name(project) for project in deployment.projects}) == 9


@pytest.mark.defect("D12", "F11")
def test_the_instance_file_limits_pools_runs_and_backfills(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        concurrency = instance.get_concurrency_config()
        assert concurrency.pool_config.default_pool_limit == 2
        assert concurrency.pool_config.pool_granularity is not None
        assert concurrency.pool_config.pool_granularity.value == "run"
        queue = concurrency.run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 4
        assert queue.tag_concurrency_limits == [
            {"key": "dagster/backfill", "limit": 3},
            {"key": "dagster/backfill", "value": {"applyLimitPerUniqueValue": True}, "limit": 1},
            {"key": MODE_TAG, "value": LATE, "limit": 2},
        ]
