"""`langfuse-worker export`: results, exit codes, and errors of one line."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from langfuse_export.catalog.model import CatalogModel
from langfuse_export.health.state import Health, State
from langfuse_export.health.store import HealthStore
from langfuse_worker.clickhouse import QueryLimits
from langfuse_worker.clickhouse.client import Address
from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.settings import Settings
from tests.command import ROOT, Ended, langfuse_worker
from tests.export.project import write_catalog
from tests.rows import NOON, PROJECT, insert, observation, trace

PERIOD = ("--from", "2026-06-01T12:00", "--to", "2026-06-01T14:00")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment with some rows of project p1, in a directory whose name URLs would not take as it is."""
    directory = tmp_path / "my home #1 50%"
    monkeypatch.setenv("LANGFUSE_HOME", str(directory))
    settings = Settings()
    engine = EmbeddedClickHouse(
        Address.of(settings.embedded_url, settings), QueryLimits.from_settings(settings)
    )
    with engine.client() as client:
        insert(client.command, "traces", [trace("t1"), trace("t2", NOON + timedelta(hours=1))])
        insert(client.command, "observations", [observation("o1")])
    return directory


def _run(home: Path, *arguments: str, **environment: str) -> Ended:
    return langfuse_worker("export", "run", "--project", PROJECT, *arguments, home=home, **environment)


@pytest.mark.defect("F12")
def test_run_exports_windows_and_status_shows_them(home: Path) -> None:
    ended = _run(home, *PERIOD, "--json")

    assert ended.code == 0, ended.err
    report = ended.json
    assert (report["windows"], report["exported_windows"], report["rows"]) == (2, 2, 3)
    assert len(report["objects"]) == 8
    assert {line["event"] for line in ended.logs} == {
        "blob_export_table_exported",
        "blob_export_window_exported",
    }
    for line in ended.logs:
        assert {"projectId", "windowStart", "windowEnd", "durationMs", "mode"} <= set(line)
    assert len(list((home / "blobs" / PROJECT / "manifests").iterdir())) == 2

    status = langfuse_worker("export", "status", "--json", home=home)

    assert status.code == 0
    rows = {row["table"]: row for row in status.json}
    assert rows["traces"]["last_window"] == "2026-06-01T14:00:00.000Z"
    assert (rows["traces"]["rows"], rows["traces"]["exported_windows"]) == (1, 2)
    assert rows["traces"]["lag_s"] > 0
    assert rows["scores"]["failed_windows"] == 0


def test_history_does_not_depend_on_the_working_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()

    monkeypatch.chdir(here)
    ended = _run(home, *PERIOD, "--table", "traces", DAGSTER_HOME="")
    monkeypatch.chdir(elsewhere)
    status = langfuse_worker("export", "status", "--json", home=home, DAGSTER_HOME="")

    assert ended.code == status.code == 0, ended.err + status.err
    rows = {row["table"]: row for row in status.json}
    assert rows["traces"]["exported_windows"] == 2
    assert not list(here.iterdir())
    instance = yaml.safe_load((home / "dagster" / "dagster.yaml").read_text())
    assert instance["concurrency"]["pools"] == {"default_limit": 2, "granularity": "run"}


def test_without_json_people_read_one_line_and_a_table_without_colours(home: Path) -> None:
    ended = _run(home, *PERIOD, "--table", "traces")

    assert ended.code == 0
    assert "2 of 2 windows exported: 2 rows" in ended.out
    assert "\x1b[" not in ended.out + ended.err
    assert not (home / "blobs" / PROJECT / "scores").exists()
    status = langfuse_worker("export", "status", home=home)
    assert "traces" in status.out
    assert "\x1b[" not in status.out


def test_a_window_that_fails_is_exit_code_1_with_its_reason(home: Path) -> None:
    (home / "blobs").write_text("a file where the directory should be")

    ended = _run(home, *PERIOD, "--json")

    assert ended.code == 1
    assert "cannot make the directory" in ended.json["failures"][0]
    assert ended.json["exported_windows"] == 0


@pytest.mark.parametrize("as_json", [True, False], ids=["for scripts", "for people"])
def test_windows_that_would_fail_as_the_first_one_has_are_left_out(home: Path, as_json: bool) -> None:
    (home / "blobs").write_text("a file where the directory should be")
    period = ("--from", "2026-06-01T12:00", "--to", "2026-06-01T16:00")

    ended = _run(
        home,
        *period,
        *(["--json"] if as_json else []),
        LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN="1",
    )

    assert ended.code == 1
    if as_json:
        report = ended.json
        assert (len(report["failures"]), report["windows"], report["exported_windows"]) == (1, 4, 0)
        assert (report["left_out"], report["left_out_reason"]) == (3, "destination_access")
    else:
        assert "3 windows left out: every one would fail alike (destination_access)" in ended.err
        assert "0 of 4 windows exported" in ended.out


def test_windows_after_one_that_fails_for_its_own_reason_are_exported(home: Path) -> None:
    assert _run(home, *PERIOD).code == 0
    manifests = home / "blobs" / PROJECT / "manifests"
    first = min(manifests.iterdir())
    manifest = json.loads(first.read_text())
    manifest["window"]["minTimestamp"] = "2026-05-31T13:00:00.000Z"  # one of a day, which keeps its key
    first.write_text(json.dumps(manifest))

    ended = _run(home, *PERIOD, "--json", LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN="1")

    report = ended.json
    assert (ended.code, len(report["failures"]), report["exported_windows"]) == (1, 1, 1)
    assert report["left_out"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "2099-01-01", "--to", "2099-01-02"), "--to 2099-01-02T00:00:00.000Z lies in the future"),
        (("--from", "2026-06-01T12:30", "--to", "2026-06-01T14:00"), "--from 2026-06-01T12:30:00.000Z cuts"),
        (("--from", "2026-06-01T14:00", "--to", "2026-06-01T12:00"), "is not before --to"),
        (("--from", "2026-05-01", "--to", "2026-06-01"), "lies before the project's start"),
        (("--from", "yesterday", "--to", "2026-06-01"), "--from 'yesterday'"),
        ((*PERIOD, "--table", "tracez"), "--table 'tracez'"),
        ((*PERIOD, "--project", "nobody"), "no project 'nobody' in the catalog; there are: p1"),
    ],
    ids=[
        "future",
        "off the grid",
        "reversed",
        "before the start",
        "no time",
        "unknown table",
        "unknown project",
    ],
)
def test_a_wrong_argument_is_exit_code_2_and_one_line(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = _run(home, *arguments)

    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert ended.out == ""


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("LANGFUSE_WORKER_ROLE", "exports", "'all', 'ingestion' or 'export'"),
        ("CLICKHOUSE_URL", "clickhouse:8123", "http://host:8123"),
        ("LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS", "0", "greater than or equal to 1"),
        ("LANGFUSE_EXPORT_CONFIG", "nowhere.yaml", "No such file"),
    ],
)
def test_a_wrong_setting_is_exit_code_2_and_names_variable_value_and_remedy(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    ended = langfuse_worker("export", "status", home=tmp_path / "home", **{name: value})

    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert name in ended.err
    assert value in ended.err
    assert allowed in ended.err


def test_a_command_by_hand_without_the_variables_of_dagster_yaml_names_them_in_one_line(home: Path) -> None:
    (home / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text("utf-8"))

    ended = langfuse_worker("export", "status", home=home, DAGSTER_POSTGRES_HOST="postgres")

    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert f"{home}/dagster.yaml asks for DAGSTER_POSTGRES_DB, DAGSTER_POSTGRES_PASSWORD" in ended.err
    assert "DAGSTER_POSTGRES_HOST" not in ended.err


@pytest.mark.parametrize(
    ("command", "variables", "message"),
    [
        (("export", "status"), {"DAGSTER_HOME": "/nowhere"}, "DAGSTER_HOME=/nowhere: must be the absolute"),
        (("export", "status"), {"DAGSTER_HOME": "."}, "DAGSTER_HOME=.: must be the absolute"),
        (("export", "status"), {"DAGSTER_HOME": "", "LANGFUSE_HOME": "a-file"}, "LANGFUSE_HOME=a-file: "),
        (("start",), {"LANGFUSE_HOME": "a-file"}, "LANGFUSE_HOME=a-file: "),
    ],
)
def test_a_directory_that_cannot_be_used_is_one_line(
    tmp_path: Path, command: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    Path("a-file").touch()
    write_catalog(tmp_path)
    server = {"CLICKHOUSE_URL": "http://127.0.0.1:1", "LANGFUSE_EXPORT_CONFIG": "exports.yaml"}

    ended = langfuse_worker(*command, home=tmp_path / "home", **server, **variables)

    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (
            {"postgres": {"postgres_url": "postgresql+psycopg2://u:hunter2@127.0.0.1:1/d"}},
            "Connection refused",
        ),
        ({"sqlite": {"base_dir": "/proc/nowhere"}}, "No such file or directory: '/proc/nowhere"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_storage_of_dagster_that_cannot_be_used_is_one_line(
    tmp_path: Path, storage: dict[str, Any], message: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage}))

    ended = langfuse_worker("export", "history", home=home)

    assert (ended.code, ended.out) == (1, "")
    last = ended.err.splitlines()[-1]  # after what Dagster says of its attempts
    assert f"Dagster's storage, as {home}/dagster.yaml says: " in last
    assert message in last
    assert "Traceback" not in ended.err
    assert "hunter2" not in ended.err


def test_a_role_without_exports_refuses_to_export(tmp_path: Path) -> None:
    ended = langfuse_worker("export", "status", home=tmp_path / "home", LANGFUSE_WORKER_ROLE="ingestion")
    assert (ended.code, ended.out) == (2, "")
    assert "LANGFUSE_WORKER_ROLE=ingestion" in ended.err


def test_check_tries_source_tables_and_destination(home: Path, tmp_path: Path) -> None:
    good = langfuse_worker("export", "check", "--json", home=home)
    assert good.code == 0
    findings = {finding["what"]: finding for finding in good.json}
    assert all(finding["ok"] for finding in findings.values())
    assert {"catalog", "source", "p1: traces", "p1: events", "destination blobs"} <= set(findings)
    assert list((home / "blobs").glob("langfuse-export-check-*")) == []

    (tmp_path / "file").write_text("")
    broken = write_catalog(tmp_path, destination={"url": f"file://{tmp_path}/file/below/"})
    bad = langfuse_worker("export", "check", "--json", home=home, LANGFUSE_EXPORT_CONFIG=str(broken))
    assert bad.code == 1
    assert [finding["what"] for finding in bad.json if not finding["ok"]] == ["destination blobs"]


def test_check_fits_the_terminal_and_leaves_nothing_out(home: Path) -> None:
    found = langfuse_worker("export", "check", "--json", home=home).json
    shown = langfuse_worker("export", "check", home=home, COLUMNS="80").out

    assert max(map(len, shown.splitlines())) <= 80
    assert all("".join(finding["result"].split()) in "".join(shown.split()) for finding in found)


def test_the_published_schema_is_the_models(tmp_path: Path) -> None:
    ended = langfuse_worker("export", "schema", home=tmp_path / "home")
    assert json.loads(ended.out) == CatalogModel.model_json_schema()
    published = Path(__file__).parents[3] / "docs" / "exports.schema.json"
    assert published.read_text() == ended.out


@pytest.mark.parametrize("command", [(), ("export",), ("export", "run"), ("demo",), ("start",)], ids=" ".join)
def test_help_is_there_and_shows_an_example(tmp_path: Path, command: tuple[str, ...]) -> None:
    ended = langfuse_worker(*command, "--help", home=tmp_path / "home")
    assert ended.code == 0
    assert "Usage: langfuse-worker" in ended.out
    if command in (("export", "run"), ("start",)):
        assert "Example" in ended.out


def test_rows_at_noon_are_the_ones_that_were_inserted(home: Path) -> None:
    _run(home, "--from", "2026-06-01T12:00", "--to", "2026-06-01T13:00", "--table", "traces")
    [file] = (home / "blobs" / PROJECT / "traces").iterdir()
    assert file.name == f"{NOON + timedelta(hours=1):%Y-%m-%dT%H-%M-%S}.parquet"


def test_brackets_in_a_name_are_shown(home: Path, tmp_path: Path) -> None:
    catalog = {
        "destinations": {"[red]": {"url": f"file://{tmp_path}/blobs/"}},
        "projects": [{"id": "[red]bot", "destination": "[red]", "start": "2026-06-01"}],
    }
    file = tmp_path / "exports.yaml"
    file.write_text(yaml.safe_dump(catalog))

    for command in ("status", "check"):
        shown = langfuse_worker("export", command, home=home, LANGFUSE_EXPORT_CONFIG=str(file))
        assert "[red]bot" in shown.out, shown.err
    assert "destination [red]" in shown.out
    assert "ClickHouse has no rows of '[red]bot'" in " ".join(shown.out.split())


def test_all_projects_that_are_in_trouble_are_resumed_at_once(tmp_path: Path) -> None:
    home, projects = tmp_path / "home", ("stopped", "failing", "working-again", "healthy")
    catalog = write_catalog(tmp_path, *({"id": id} for id in projects))
    variables = {"LANGFUSE_EXPORT_CONFIG": str(catalog), "DAGSTER_HOME": ""}
    langfuse_worker("export", "status", home=home, **variables)  # makes the instance
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        store = HealthStore(instance)
        store.change("stopped", lambda _: Health(since=NOON, blocked=True, stopped=True, user_faults=3))
        store.change("failing", lambda _: Health(since=NOON, windows=("2026-06-01T00",), rounds=2))
        store.change("working-again", lambda _: Health(since=NOON))

        assert langfuse_worker("export", "resume", home=home, **variables).code == 2
        ended = langfuse_worker("export", "resume", "--all", home=home, **variables)

        assert ended.code == 0, ended.err
        assert [line.split()[0] for line in ended.out.splitlines()] == ["stopped", "failing"]
        assert {health.rounds + health.user_faults for health in store.read(projects).values()} == {0}
        assert store.read(["stopped"])["stopped"].state is State.BACKING_OFF


def test_check_says_what_to_do_about_a_catalog_without_projects(tmp_path: Path) -> None:
    ended = langfuse_worker("export", "check", "--json", home=tmp_path / "empty")

    assert ended.code == 1
    [catalog] = [finding for finding in ended.json if finding["what"] == "catalog"]
    assert "list one" in catalog["result"]
