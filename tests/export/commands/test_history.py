"""`langfuse-worker export history`, as a shell sees it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from langfuse_export.attempts import Attempt
from langfuse_export.commands.history import Period, attempts_table
from langfuse_export.query_cost import QueryCosts
from langfuse_worker.console import width_of
from tests.command import Ended, langfuse_worker
from tests.export.http.exporting import HOUR
from tests.export.http.heavy import MEMORY, insert_heavy_observations
from tests.export.project import write_catalog
from tests.rows import PROJECT, insert, trace
from tests.servers.clickhouse import ClickHouseServer

PERIOD = ("--project", PROJECT, "--from", "2026-06-01T12:00", "--to", "2026-06-01T14:00")


@pytest.fixture
def environment(clickhouse: ClickHouseServer, tmp_path: Path) -> dict[str, str]:
    """A deployment that exports traces and scores of p1 from the server to files."""
    insert(clickhouse.execute, "traces", [trace("t1"), trace("t2")])
    path = write_catalog(tmp_path, {"tables": ["traces", "scores"]})
    return {**clickhouse.environment_of_a_worker, "LANGFUSE_EXPORT_CONFIG": str(path)}


def history(home: Path, environment: dict[str, str], *arguments: str) -> Ended:
    """Run the command."""
    return langfuse_worker("export", "history", *arguments, home=home, **environment)


@pytest.mark.defect("F12")
def test_history_lists_every_run_with_object_and_cost(
    tmp_path: Path, clickhouse: ClickHouseServer, environment: dict[str, str]
) -> None:
    home = tmp_path / "home"
    assert history(home, environment).out == "Nothing has been exported or tried.\n"
    assert langfuse_worker("export", "run", *PERIOD, home=home, **environment).code == 0
    ended = langfuse_worker("export", "run", *PERIOD, "--json", home=home, **environment)
    assert ended.code == 0, ended.err
    objects = {(o["queryId"], o["sha256"]) for o in ended.json["objects"]}
    clickhouse.execute("SYSTEM FLUSH LOGS query_log")

    ended = history(home, environment, "--json")

    assert ended.code == 0, ended.err
    rows = ended.json
    assert len(rows) == 8
    assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)
    assert {(row["query_id"], row["sha256"]) for row in rows[:4]} == objects
    noon = [
        row for row in rows if row["table"] == "traces" and row["window_start"].startswith("2026-06-01T12")
    ]
    assert [row["revision"] for row in noon] == [2, 1]
    for row in noon:
        assert (row["outcome"], row["mode"], row["rows"], row["reason"]) == ("exported", "catchup", 2, None)
        assert row["cost"]["read_rows"] >= 2
        assert row["cost"]["read_bytes"] > 0
        assert row["cost"]["peak_memory"] > 0
        assert row["duration_s"] >= 0

    chosen = history(home, environment, "--window", "2026-06-01T13:30", "--table", "traces", "--json").json
    assert [row["window_start"] for row in chosen] == ["2026-06-01T13:00:00.000Z"] * 2
    assert len(history(home, environment, "--limit", "3", "--json").json) == 3
    assert history(home, environment, "--from", "2026-06-01T14:00", "--json").json == []


def test_a_window_that_was_read_in_parts_has_the_cost_of_all_its_queries(
    tmp_path: Path, clickhouse: ClickHouseServer, environment: dict[str, str]
) -> None:
    home = tmp_path / "home"
    write_catalog(tmp_path, {"tables": ["observations"]})
    environment["LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_MEMORY_USAGE"] = str(MEMORY)
    environment["LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS"] = "1"
    insert_heavy_observations(clickhouse)
    period = (*PERIOD[:-1], "2026-06-01T13:00")
    ended = langfuse_worker("export", "run", *period, home=home, **environment)
    assert ended.code == 0, ended.err
    clickhouse.execute("SYSTEM FLUSH LOGS query_log")

    [row] = history(home, environment, "--json").json

    in_log = clickhouse.cost_of_exports(row["run_id"], "observations")
    assert {"queries": row["queries"], **row["cost"]} == pytest.approx(in_log)
    assert row["queries"] > 2
    assert row["queries_not_in_log"] == 0


def test_people_read_a_table_with_short_sums_and_reasons_below(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    home, blobs = tmp_path / "home", tmp_path / "blobs"
    blobs.write_text("a file where the directory should be")
    assert langfuse_worker("export", "run", *PERIOD, home=home, **environment).code == 1
    blobs.unlink()
    assert langfuse_worker("export", "run", *PERIOD, home=home, **environment).code == 0

    ended = langfuse_worker("export", "history", "--json", home=home, **environment)
    sums = [row["sha256"] for row in ended.json if row["sha256"]]
    shown = history(home, {**environment, "COLUMNS": "40"})

    assert shown.code == 0
    assert "Rows read" in shown.out
    assert "…" not in shown.out
    assert all(sha256[:8] in shown.out and sha256 not in shown.out for sha256 in sums)
    assert "p1 traces 2026-06-01 12:00 failed: " in shown.out
    assert "cannot make the directory" in shown.out
    assert "p1 traces 2026-06-01 13:00 failed: " in shown.out
    assert "\x1b[" not in shown.out


def test_what_has_left_the_catalog_is_shown_when_its_project_is_named(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    home, catalog = tmp_path / "home", tmp_path / "exports.yaml"
    assert langfuse_worker("export", "run", *PERIOD, home=home, **environment).code == 0
    before = history(home, environment, "--project", PROJECT, "--json").json

    catalog.write_text(catalog.read_text().replace("- scores", "- observations"))
    assert history(home, environment, "--project", PROJECT, "--json").json == before
    catalog.write_text(catalog.read_text().replace("hourly", "daily").replace(PROJECT, "another"))
    assert history(home, environment, "--project", PROJECT, "--json").json == before

    chosen = ("--window", "2026-06-01T13:30", "--table", "scores", "--json")
    [row] = history(home, environment, "--project", PROJECT, *chosen).json
    assert (row["project"], row["window_start"]) == (PROJECT, "2026-06-01T13:00:00.000Z")
    unknown = history(home, environment, "--project", "nobody")
    assert unknown.code == 2
    assert f"there are: another; exported before: {PROJECT}" in unknown.err


def test_windows_of_an_earlier_frequency_are_there_beside_the_present_ones(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    home, catalog = tmp_path / "home", tmp_path / "exports.yaml"
    assert langfuse_worker("export", "run", *PERIOD, home=home, **environment).code == 0
    hourly = history(home, environment, "--json").json
    catalog.write_text(catalog.read_text().replace("start:", "frequency: daily\n  start:"))
    day = ("--project", PROJECT, "--from", "2026-06-01", "--to", "2026-06-02")
    assert langfuse_worker("export", "run", *day, home=home, **environment).code == 0

    rows = history(home, environment, "--json").json
    long_ago = history(home, environment, "--from", "2015-01-01", "--json").json
    one = history(home, environment, "--window", "2026-06-01T13:30", "--table", "traces", "--json").json

    assert (rows[2:], len(rows)) == (hourly, 6)
    assert long_ago == rows
    assert [row["window_start"][11:13] for row in one] == ["00", "13"]


def test_a_narrow_terminal_shows_what_became_of_which_window() -> None:
    attempt = Attempt("support-bot", "observations", HOUR, HOUR.end, "c7c0ffee", "catchup", "not_tried")
    whole, none = attempts_table([attempt], QueryCosts(), None)
    narrow, without = attempts_table([attempt], QueryCosts(), 80)

    assert width_of(whole) > 80 >= width_of(narrow)
    assert none == []
    assert without[0] == "SHA-256"
    assert [column.header for column in narrow.columns][:5] == [
        "At (UTC)", "Project", "Table", "Window", "Outcome"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("noon", None, None), "--window 'noon'"),
        (("2026-06-01", "2026-06-01", None), "--window names one window"),
        ((None, None, "2026-06-01"), "--to needs --from"),
        ((None, "2026-06-02", "2026-06-01"), "is not before --to"),
        ((None, "2099-01-01", None), "is not before --to"),
    ],
)
def test_a_wrong_period_names_the_option(options: tuple[str | None, ...], message: str) -> None:
    window, start, end = options
    with pytest.raises(ValueError, match=message):
        Period.of(window, start, end, datetime.now(UTC))


def test_a_project_that_does_not_exist_is_exit_code_2_and_one_line(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").touch()  # Dagster warns of an instance without one

    ended = history(tmp_path / "home", environment, "--project", "nobody")
    assert (ended.code, ended.out) == (2, "")
    [line] = ended.err.splitlines()
    assert line == "langfuse-worker: no project 'nobody' in the catalog; there are: p1"
