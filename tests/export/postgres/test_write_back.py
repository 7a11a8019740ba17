"""What Langfuse's Postgres hears of exports, and what is in the bucket by then."""

import threading
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from langfuse_export.history import History
from langfuse_export.project import ProjectExport
from langfuse_export.write_back import PostgresWriteBack
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings
from tests.export.location import load_location
from tests.export.postgres.deployment import Deployment
from tests.rows import PROJECT, event, score
from tests.servers.langfuse_postgres import encrypted
from tests.servers.s3 import S3Fault, S3Proxy

NOON = datetime(2026, 6, 1, 12, 30)


def test_rows_become_objects_where_langfuse_would_write_them(deployment: Deployment) -> None:
    deployment.add(prefix="langfuse/", last_sync_at=datetime(2026, 6, 1, 12, 17, 3))
    deployment.insert("events_full", event("e1"), event("e2"))
    deployment.insert("scores", score("s1"))

    assert deployment.run("2026-06-01T12", "2026-06-01T12").success

    below = f"langfuse/{PROJECT}"
    stamp = "2026-06-01T13-00-00"
    assert deployment.objects() == [
        f"{below}/manifests/{stamp}.json",
        f"{below}/observations_v2/{stamp}.parquet",
        f"{below}/scores/{stamp}.parquet",
    ]
    row = deployment.postgres.row(PROJECT)
    assert row["last_sync_at"] == datetime(2026, 6, 1, 13)
    assert row["next_sync_at"] == datetime(2026, 6, 1, 14, 20)
    assert (row["run_started_at"], row["last_error"], row["last_error_at"]) == (None, None, None)


def test_the_cursor_moves_on_window_by_window_and_the_first_window_stays(deployment: Deployment) -> None:
    deployment.add()
    assert deployment.run("2026-06-01T00", "2026-06-01T02").success
    assert deployment.cursor() == "01T03:00"
    assert deployment.run("2026-06-01T03", "2026-06-01T03").success
    assert deployment.cursor() == "01T04:00"
    project = deployment.project()
    assert (project.start.hour, project.catch_up_from and project.catch_up_from.hour) == (0, 4)


@pytest.mark.defect("D12")
def test_repairing_an_old_window_does_not_move_the_cursor_back(deployment: Deployment) -> None:
    """In Langfuse whoever finishes last decides, and may set the cursor back."""
    deployment.add()
    deployment.run("2026-06-01T00", "2026-06-01T05")
    assert deployment.run("2026-06-01T01", "2026-06-01T01").success
    assert deployment.cursor() == "01T06:00"


def test_the_cursor_waits_at_a_gap_and_jumps_once_it_is_closed(deployment: Deployment) -> None:
    deployment.add()
    deployment.run("2026-06-01T00", "2026-06-01T00")
    deployment.run("2026-06-01T02", "2026-06-01T08")
    assert deployment.cursor() == "01T01:00"
    deployment.run("2026-06-01T01", "2026-06-01T01")
    assert deployment.cursor() == "01T09:00"


@pytest.mark.defect("D16")
def test_a_window_that_lacks_a_table_does_not_move_the_cursor(deployment: Deployment) -> None:
    """In Langfuse what one table needs again, all read again."""
    deployment.add()
    assert deployment.run("2026-06-01T00", "2026-06-01T00", tables=["scores"]).success
    assert deployment.cursor() is None
    assert deployment.run("2026-06-01T00", "2026-06-01T00", tables=["events"]).success
    assert deployment.cursor() == "01T01:00"


@pytest.mark.defect("D12")
def test_two_workers_of_one_window_agree(deployment: Deployment) -> None:
    deployment.add()
    deployment.run("2026-06-01T00", "2026-06-01T02")
    load_location()
    runs = [
        threading.Thread(target=deployment.run, args=keys)
        for keys in (("2026-06-01T00", "2026-06-01T02"), ("2026-06-01T03", "2026-06-01T04"))
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert deployment.cursor() == "01T05:00"
    assert deployment.postgres.row("p1")["run_started_at"] is None


def test_a_failure_is_told_and_a_success_takes_it_back(deployment: Deployment) -> None:
    deployment.add(bucket_name="missing")
    assert not deployment.run("2026-06-01T00", "2026-06-01T00").success
    row = deployment.postgres.row("p1")
    assert "missing" in row["last_error"]
    assert len(row["last_error"]) <= 1000
    assert row["last_error_at"] is not None
    assert (row["run_started_at"], row["last_sync_at"]) == (None, None)

    deployment.postgres.change("p1", bucket_name="exports")
    assert deployment.run("2026-06-01T00", "2026-06-01T00").success

    row = deployment.postgres.row("p1")
    assert (row["last_error"], row["last_error_at"]) == (None, None)
    assert deployment.cursor() == "01T01:00"


def test_the_error_of_a_window_that_waits_outlives_the_success_of_others(deployment: Deployment) -> None:
    """Otherwise the page would show no reason why `last_sync_at` stands still."""
    deployment.add(bucket_name="missing")
    assert not deployment.run("2026-06-01T00", "2026-06-01T00").success
    deployment.postgres.change("p1", bucket_name="exports")

    assert deployment.run("2026-06-01T01", "2026-06-01T01").success
    row = deployment.postgres.row("p1")
    assert "missing" in row["last_error"]
    assert row["run_started_at"] is None
    assert deployment.cursor() == "01T00:00"

    assert deployment.run("2026-06-01T00", "2026-06-01T00").success
    assert deployment.postgres.row("p1")["last_error"] is None
    assert deployment.cursor() == "01T02:00"


def test_a_project_that_stops_says_so_and_what_to_do(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_EXPORT_STOP_AFTER_FAILURES", "1")
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_EXPORT_STOP_AFTER_S", "0")
    deployment.add(bucket_name="missing")
    assert not deployment.run("2026-06-01T00", "2026-06-01T00").success
    said = deployment.postgres.row("p1")["last_error"]
    assert said.startswith("Stopped. Check that the destination's bucket")
    assert "A change of its configuration starts it again" in said
    assert "NoSuchBucket" in said


def test_a_secret_is_in_no_error(deployment: Deployment) -> None:
    deployment.add(secret_access_key=encrypted("hunter2hunter2"), bucket_name="hunter2hunter2")
    assert not deployment.run("2026-06-01T00", "2026-06-01T00").success
    assert "hunter2" not in deployment.postgres.row("p1")["last_error"]


def test_while_it_runs_langfuse_says_so(deployment: Deployment, s3_proxy: S3Proxy) -> None:
    deployment.add(endpoint=s3_proxy.url)
    goes_on = threading.Event()
    s3_proxy.faults = [S3Fault("PUT", "/scores/", until=goes_on)]
    run = threading.Thread(target=deployment.run, args=("2026-06-01T00", "2026-06-01T00"))
    run.start()
    try:
        s3_proxy.wait_for("PUT", "/scores/")
        assert deployment.postgres.row("p1")["run_started_at"] is not None
    finally:
        goes_on.set()
        run.join()
    assert deployment.postgres.row("p1")["run_started_at"] is None


def test_a_changed_destination_applies_at_the_next_run(deployment: Deployment) -> None:
    deployment.add()
    deployment.run("2026-06-01T00", "2026-06-01T00")
    deployment.postgres.change("p1", prefix="moved/", file_type="JSONL", compressed=True)
    deployment.run("2026-06-01T01", "2026-06-01T01")
    assert "moved/p1/scores/2026-06-01T02-00-00.jsonl.gz" in deployment.objects()


def test_postgres_that_goes_away_during_a_run_fails_no_export(deployment: Deployment) -> None:
    deployment.add()
    job = load_location()
    project = deployment.project()
    with capture_logs() as logs, deployment.postgres.closed():
        assert deployment.run_loaded(job, project, "2026-06-01T00", "2026-06-01T00").success
    assert "p1/manifests/2026-06-01T01-00-00.json" in deployment.objects()
    assert {line["event"] for line in logs} >= {"listener_failed", "blob_export_window_exported"}
    assert deployment.cursor() is None

    assert deployment.run("2026-06-01T01", "2026-06-01T01").success
    assert deployment.cursor() == "01T02:00"


def test_a_project_deleted_meanwhile_is_no_error(deployment: Deployment) -> None:
    deployment.add()
    job = load_location()
    project = deployment.project()
    deployment.postgres.empty()
    with capture_logs() as logs:
        assert deployment.run_loaded(job, project, "2026-06-01T00", "2026-06-01T00").success
    assert "listener_failed" not in {line["event"] for line in logs}


@pytest.mark.defect("D13")
@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"export_frequency": "monthly"}, "export_frequency 'monthly'"),
        ({"secret_access_key": encrypted("s", "00" * 32)}, "ENCRYPTION_KEY is not the key"),
    ],
    ids=["frequency", "secret"],
)
def test_a_row_that_is_left_out_says_why_before_any_query(
    deployment: Deployment, columns: dict[str, str], error: str
) -> None:
    """In Langfuse such an error is stored nowhere, and its page says `running` for two hours."""
    deployment.add("bad", run_started_at=NOON, **columns)
    deployment.add()

    assert deployment.run("2026-06-01T00", "2026-06-01T00").success

    row = deployment.postgres.row("bad")
    assert error in row["last_error"]
    assert row["last_error_at"] is not None
    assert row["run_started_at"] is None


def test_projects_of_exports_yaml_are_not_told_of(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.add()
    with open("exports.yaml", "w") as file:
        file.write(
            "destinations: {here: {url: 's3://exports/yaml/', endpoint: '" + deployment.s3.url + "',"
            " access_key_id: key, secret_access_key: secret, region: eu-central-1}}\n"
            "projects: [{id: p1, destination: here, start: 2026-06-01, tables: [scores, events]}]\n"
        )
    monkeypatch.setenv("LANGFUSE_EXPORT_CONFIG", "exports.yaml")
    assert deployment.run("2026-06-01T00", "2026-06-01T00").success
    assert all(key.startswith("yaml/") for key in deployment.objects())
    assert deployment.cursor() is None


@pytest.mark.defect("D12")
def test_a_worker_that_is_overtaken_while_it_looks_does_not_move_the_cursor_back(
    deployment: Deployment,
) -> None:
    deployment.add()
    project = deployment.project()
    [window] = project.frequency.windows(project.start, project.start + project.frequency.length)

    class Overtaken(History):
        """Meanwhile another worker, which knows of more windows, writes the cursor."""

        def exported_until(self, project: ProjectExport, since: datetime) -> datetime:
            deployment.postgres.change("p1", last_sync_at=datetime(2026, 6, 1, 9))
            return window.end

    url = Settings().database_url
    assert url is not None
    write_back, history = (
        PostgresWriteBack(Database(url), timedelta(minutes=20)),
        Overtaken(deployment.instance),
    )
    write_back.window_exported(project, window, history)

    assert deployment.cursor() == "01T09:00"
