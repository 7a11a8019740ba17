"""Tables, Langfuse's own export, Dagster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from langfuse_export.doctor import export_checks
from langfuse_export.doctor.dagster import check_concurrency, check_storage
from langfuse_export.doctor.langfuse import check_other_exports
from langfuse_export.doctor.subject import Subject
from langfuse_export.doctor.tables import check_catalog, check_projects, check_tables
from langfuse_export.windows import Frequency
from langfuse_worker.doctor import Finding, Status
from langfuse_worker.doctor.runner import run_checks
from langfuse_worker.settings import Settings
from tests.export.project import write_catalog
from tests.rows import PROJECT, insert, score, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import analyst_with

ROOT = Path(__file__).parents[3]


@pytest.fixture
def subject(clickhouse: ClickHouseServer, tmp_path: Path) -> Subject:
    """Hourly exports of p1."""
    path = write_catalog(tmp_path)
    return Subject(
        clickhouse.settings(LANGFUSE_EXPORT_CONFIG=str(path), LANGFUSE_HOME=str(tmp_path / "home"))
    )


def the_bad_table(subject: Subject) -> Finding:
    """What is said of the one table that is not as it should be."""
    [bad] = [finding for finding in check_tables(subject) if finding.status is not Status.OK]
    return bad


def test_tables_with_all_their_columns_are_there(subject: Subject) -> None:
    found = list(check_tables(subject))
    assert {f.what for f in found} >= {"table traces", "table observations", "table scores", "table events"}
    assert {f.status for f in found} == {Status.OK}


@contextmanager
def scores_without(clickhouse: ClickHouseServer, column: str) -> Iterator[None]:
    """`scores` as another version of Langfuse might have it."""
    clickhouse.execute(f"ALTER TABLE scores RENAME COLUMN {column} TO other")
    try:
        yield
    finally:
        clickhouse.execute(f"ALTER TABLE scores RENAME COLUMN other TO {column}")


def test_a_column_that_is_missing_is_named(clickhouse: ClickHouseServer, subject: Subject) -> None:
    with scores_without(clickhouse, "comment"):
        bad = the_bad_table(subject)
    assert (bad.what, bad.status) == ("table scores", Status.PROBLEM)
    assert "comment" in bad.result
    assert "SELECT" not in bad.result  # nor the whole query


@contextmanager
def instead_of_scores(clickhouse: ClickHouseServer, statement: str) -> Iterator[None]:
    """What the statement creates by the name of `scores`; the table is `scores_of_langfuse` meanwhile."""
    clickhouse.execute("RENAME TABLE scores TO scores_of_langfuse")
    clickhouse.execute(statement)
    try:
        yield
    finally:
        clickhouse.execute("DROP TABLE scores")
        clickhouse.execute("RENAME TABLE scores_of_langfuse TO scores")


def test_a_view_instead_of_a_table_is_named(clickhouse: ClickHouseServer, subject: Subject) -> None:
    with instead_of_scores(clickhouse, "CREATE VIEW scores AS SELECT * FROM scores_of_langfuse"):
        bad = the_bad_table(subject)
    assert (bad.what, bad.status) == ("table scores", Status.PROBLEM)
    assert bad.remedy == "default.scores is a view: exports need the table that Langfuse writes to"


def test_a_row_policy_that_hides_rows_from_exports_is_named(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path / "server") as server:
        insert(server.execute, "traces", [trace("t1")])
        insert(server.execute, "scores", [score("s1")])
    users = analyst_with(tmp_path, {}, row_policy={"traces": "environment = 'prod'"})
    with ClickHouseServer(tmp_path / "server", users=users) as server:
        path = write_catalog(tmp_path)
        subject = Subject(server.settings(LANGFUSE_EXPORT_CONFIG=str(path), LANGFUSE_HOME=str(tmp_path)))
        bad = the_bad_table(subject)
    assert (bad.what, bad.status) == ("table traces", Status.WARNING)
    assert "environment = 'prod'" in bad.result.replace("\\", "")
    assert "ROW POLICY" in bad.remedy


@pytest.fixture
def detached_part(clickhouse: ClickHouseServer) -> Iterator[None]:
    """A part of `scores` that somebody has put aside."""
    insert(clickhouse.execute, "scores", [score("s1")])
    clickhouse.execute("ALTER TABLE scores DETACH PARTITION ID '202606'")
    yield
    clickhouse.execute(
        "ALTER TABLE scores DROP DETACHED PARTITION ID '202606' SETTINGS allow_drop_detached = 1"
    )


@pytest.mark.usefixtures("detached_part")
def test_parts_whose_rows_are_in_no_export_are_named(subject: Subject) -> None:
    bad = the_bad_table(subject)
    assert (bad.what, bad.status) == ("table scores", Status.WARNING)
    assert bad.result == "1 parts are detached (by hand): their rows are in no export"


def test_an_engine_that_keeps_deleted_rows_is_named(clickhouse: ClickHouseServer, subject: Subject) -> None:
    engine = "CREATE TABLE scores AS scores_of_langfuse ENGINE = ReplacingMergeTree(event_ts)"
    with instead_of_scores(clickhouse, engine):
        bad = the_bad_table(subject)
    assert (bad.what, bad.status) == ("table scores", Status.WARNING)
    assert "deleted rows are exported" in bad.result


def test_a_column_that_one_of_the_projects_exports_is_missing(
    clickhouse: ClickHouseServer, subject: Subject, tmp_path: Path
) -> None:
    write_catalog(tmp_path, {"columns": {"scores": "all"}}, {"id": "p2"})
    with scores_without(clickhouse, "config_id"):
        bad = the_bad_table(subject)
    assert bad.what == "table scores"
    assert "config_id" in bad.result


def test_a_project_that_clickhouse_does_not_know_is_named(
    clickhouse: ClickHouseServer, subject: Subject
) -> None:
    insert(clickhouse.execute, "traces", [trace("t1", project_id="p1-with-another-name")])
    [unknown] = check_projects(subject)
    assert unknown.status is Status.WARNING
    assert unknown.result == "ClickHouse has no rows of 'p1'; it has rows of 'p1-with-another-name'"

    insert(clickhouse.execute, "traces", [trace("t2")])
    [known] = check_projects(subject)
    assert known.status is Status.OK


def test_a_wrong_catalog_is_a_wrong_setting(subject: Subject, tmp_path: Path) -> None:
    write_catalog(tmp_path, {"frequency": "sometimes"})
    [finding] = check_catalog(subject)
    assert (finding.status, finding.is_setting) == (Status.PROBLEM, True)
    assert "sometimes" in finding.result


def test_no_sign_of_langfuses_own_export(subject: Subject, tmp_path: Path) -> None:
    folder = tmp_path / "blobs" / PROJECT / "manifests"
    folder.mkdir(parents=True)
    ours = Frequency.HOURLY.floor(datetime.now(UTC))
    (folder / f"{ours:%Y-%m-%dT%H-%M-%S}.json").write_text("{}")
    before = ours - timedelta(days=30, seconds=7)
    (folder / f"{before:%Y-%m-%dT%H-%M-%S}.json").write_text("{}")
    assert [finding.status for finding in check_other_exports(subject)] == [Status.OK]


def test_a_fresh_manifest_beside_the_clock_is_langfuses(subject: Subject, tmp_path: Path) -> None:
    folder = tmp_path / "blobs" / PROJECT / "manifests"
    folder.mkdir(parents=True)
    theirs = Frequency.HOURLY.floor(datetime.now(UTC)) - timedelta(minutes=40, seconds=13)
    name = f"{theirs:%Y-%m-%dT%H-%M-%S}.json"
    (folder / name).write_text("{}")

    [finding] = check_other_exports(subject)

    assert finding.status is Status.PROBLEM
    assert name in finding.result
    assert "QUEUE_CONSUMER_BLOB_STORAGE_INTEGRATION_QUEUE_IS_ENABLED" in finding.remedy


@pytest.mark.parametrize(("project", "status"), [(PROJECT, Status.PROBLEM), ("somebody-else", Status.OK)])
def test_langfuses_queries_tell_which_projects_it_exports(
    subject: Subject, clickhouse: ClickHouseServer, project: str, status: Status
) -> None:
    clickhouse.execute("SYSTEM FLUSH LOGS query_log")
    clickhouse.execute("TRUNCATE TABLE system.query_log")
    comment = f'{{"tag_schema_version":"1","surface":"worker","route":"blob_export","projectId":"{project}"}}'
    clickhouse.execute(f"SELECT 1 SETTINGS log_comment = '{comment}'")
    clickhouse.execute("SYSTEM FLUSH LOGS query_log")

    [finding] = check_other_exports(subject)

    assert finding.status is status
    if status is Status.PROBLEM:
        assert f"{project}: sent " in finding.result


def test_the_products_own_dagster_is_as_it_should_be(subject: Subject) -> None:
    [concurrency] = check_concurrency(subject)
    assert concurrency.status is Status.OK
    assert concurrency.result == "4 runs at once, 3 of them backfills, 2 a project"
    [storage] = check_storage(subject)
    assert storage.status is Status.WARNING  # SQLite beside a ClickHouse server
    assert "Postgres" in storage.remedy


@pytest.mark.parametrize(
    ("concurrency", "says"),
    [
        ({"runs": {"max_concurrent_runs": 4}}, "pools.default_limit is None"),
        ({"pools": {"default_limit": 1, "granularity": "op"}}, "pools.granularity is not run"),
        (
            {"pools": {"default_limit": 1, "granularity": "run"}, "runs": {"max_concurrent_runs": 4}},
            "all 4 slots",
        ),
    ],
)
def test_a_dagster_of_ones_own_is_told_what_it_lacks(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: dict[str, Any], says: str
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "dagster.yaml").write_text(yaml.safe_dump({"concurrency": concurrency}))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "own"))
    found = list(check_concurrency(subject))
    assert {finding.status for finding in found} == {Status.WARNING}
    assert any(says in finding.result for finding in found)


def test_a_dagster_whose_storage_cannot_be_used_is_one_problem(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    checks = [check for check in export_checks(subject.settings) if check.name.startswith("dagster: ")]
    [finding] = run_checks(checks)
    assert (finding.what, finding.status) == ("dagster: storage", Status.PROBLEM)
    assert "DAGSTER_HOME=/nowhere" in finding.result


def test_a_role_that_does_not_export_has_no_checks_of_exports() -> None:
    assert export_checks(Settings(LANGFUSE_WORKER_ROLE="ingestion")) == ()  # type: ignore[call-arg]
    names = {check.name for check in export_checks(Settings())}
    assert "tables" in names
    assert "clickhouse: priorities" not in names  # the embedded engine has one user


def test_every_check_that_another_needs_exists(subject: Subject) -> None:
    checks = export_checks(replace(subject).settings)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {need for check in checks for need in check.needs} <= set(names)
