"""A user whose profile has results look otherwise, as those of people who share it want them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from langfuse_export.catalog.discovery import query_projects
from langfuse_export.changes import Changes
from langfuse_export.day import Day
from langfuse_export.day_read import day_files
from langfuse_export.formats import Encoding
from langfuse_export.resources import ExportOptions
from langfuse_export.tables import TABLES
from langfuse_export.windows import EPOCH, Frequency, Window
from langfuse_worker.clickhouse import ClickHouseError
from tests.export.http.exporting import CSV, HOUR, JSONL, PARQUET, Deployment
from tests.rows import event, insert, observation, score, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import analyst_with, write_users

PROFILE = {
    "join_use_nulls": "1",
    "aggregate_functions_null_for_empty": "1",
    "empty_result_for_aggregation_by_empty_set": "1",
    "format_csv_delimiter": ";",
    "output_format_csv_crlf_end_of_line": "1",
    "output_format_json_quote_64bit_floats": "1",
    "output_format_json_map_as_array_of_tuples": "1",
    "output_format_json_array_of_rows": "1",
    "output_format_decimal_trailing_zeros": "1",
    "bool_true_representation": "yes",
    "bool_false_representation": "no",
}
IN_TOKYO = {"session_timezone": "Asia/Tokyo"}
SHOWN_A_FEW = {
    "result": {"max_result_rows": "6000", "result_overflow_mode": "break"},
    "set": {"max_rows_in_set": "6000", "set_overflow_mode": "break"},
}
# Each of them changes what queries of people return; on some, no error and no count would tell.
SHOWN_OTHERWISE = {
    "additional_table_filters": "{'traces': '0', 'scores': '0'}",
    "additional_result_filter": "0",
    "limit": "1",
    "offset": "1",
    "apply_deleted_mask": "0",
    "final": "1",
    "extremes": "1",
    "date_time_64_output_format_cut_trailing_zeros_align_to_groups_of_thousands": "1",
}
TOLD_OF_ONE = {"max_rows_to_group_by": "1", "group_by_overflow_mode": "any"}
EMPTY = Frequency.HOURLY.window(HOUR.end)
DAY = Window(HOUR.start - timedelta(hours=12), HOUR.end + timedelta(hours=11))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Deployment]:
    """Exports of p1 as that user."""
    settings = "".join(f"<{name}>{value}</{name}>" for name, value in PROFILE.items())
    profile = f"<clickhouse><profiles><default>{settings}</default></profiles></clickhouse>"
    users = write_users(tmp_path / "users", "default", profile)
    with (
        ClickHouseServer(tmp_path / "server", users=users) as server,
        Deployment(server, tmp_path / "shared") as deployment,
    ):
        yield deployment


def insert_rows(deployment: Deployment) -> None:
    """Two rows in each table, with all kinds of values."""
    deployment.insert("traces", trace("t1", metadata={"k": "v"}, public=True), trace("t2"))
    cost = {"usage_details": {"input": 1}, "cost_details": {"total": "0.5"}}
    deployment.insert("observations", observation("o1", total_cost="0.5", **cost), observation("o2"))
    deployment.insert("scores", score("s1", value=0.1), score("s2"))
    deployment.insert("events_full", event("e1", **cost), event("e2"))


@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV], ids=lambda encoding: encoding.format)
def test_files_do_not_depend_on_the_users_profile(
    deployment: Deployment, shared: Deployment, encoding: Encoding
) -> None:
    plain, odd = deployment.with_(encoding=encoding), shared.with_(encoding=encoding)
    for either in (plain, odd):
        insert_rows(either)
        either.export()
        either.export(EMPTY)

    for table in TABLES:
        assert odd.rows(table) == plain.rows(table)
        assert odd.rows(table, EMPTY) == []


def test_windows_of_a_day_are_counted_whatever_the_profile(shared: Deployment) -> None:
    insert_rows(shared)

    for table in TABLES.values():
        counted = Day(shared.exporter(), table, [HOUR, EMPTY]).count()
        assert [window.rows for window in counted] == [2, 0]


def test_rows_of_a_day_are_split_whatever_the_profile(shared: Deployment, tmp_path: Path) -> None:
    jsonl, scores = shared.with_(encoding=JSONL), TABLES["scores"]
    insert_rows(jsonl)
    exporter = jsonl.exporter()
    usual = ExportOptions.from_settings(jsonl.server.settings())
    with day_files(exporter, [(scores, [HOUR, EMPTY])], replace(usual, scratch=tmp_path)) as files:
        exporter.export(HOUR, [scores], read_ahead=files[HOUR])

    assert jsonl.ids("scores") == ["s1", "s2"]


def test_no_row_is_missed_because_of_the_zone_of_the_users_profile(tmp_path: Path) -> None:
    """In Tokyo the day changes at 15:00 UTC, in the sorting key it does not."""
    hours = list(Frequency.HOURLY.windows(HOUR.start, HOUR.start + timedelta(hours=6)))
    makers = {"traces": trace, "observations": observation, "scores": score, "events_full": event}
    with ClickHouseServer(tmp_path / "server") as server:
        for table, row in makers.items():
            insert(server.execute, table, [row(f"{hour.start:%H}", hour.start) for hour in hours])

    users = analyst_with(tmp_path, IN_TOKYO)
    with (
        ClickHouseServer(tmp_path / "server", users=users) as server,
        Deployment(server, tmp_path / "abroad") as abroad,
    ):
        counted = [Day(abroad.exporter(), table, hours).count() for table in TABLES.values()]
        for hour in hours:
            abroad.export(hour)

        for table in TABLES:
            assert [abroad.ids(table, hour) for hour in hours] == [[f"{hour.start:%H}"] for hour in hours]
        assert {window.rows for windows in counted for window in windows} == {1}


@pytest.mark.parametrize("profile", SHOWN_A_FEW.values(), ids=SHOWN_A_FEW)
def test_a_window_beyond_what_the_users_profile_shows_is_read_in_parts(
    tmp_path: Path, profile: Mapping[str, str]
) -> None:
    """With `break`, results of people just end; those of exports must not."""
    users = analyst_with(tmp_path, profile)
    ids = sorted(f"s{number}" for number in range(20_000))
    with (
        ClickHouseServer(tmp_path / "server", users=users) as server,
        Deployment(server, tmp_path / "blobs") as analyst,
    ):
        analyst.insert("scores", *(score(id) for id in ids))

        result = analyst.export(tables=[TABLES["scores"]])

        assert analyst.ids("scores") == ids
    assert result.exported["scores"].file.parts > 1


@pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV], ids=lambda encoding: encoding.format)
def test_no_row_comes_or_goes_because_of_the_users_profile(tmp_path: Path, encoding: Encoding) -> None:
    with (
        ClickHouseServer(tmp_path / "server") as server,
        Deployment(server, tmp_path / "plain", encoding=encoding) as plain,
    ):
        insert_rows(plain)
        for table, column in {"traces": "id", "events_full": "span_id"}.items():
            server.execute(f"DELETE FROM {table} WHERE endsWith({column}, '2')")
        plain.export()

    users = analyst_with(tmp_path, SHOWN_OTHERWISE)
    with (
        ClickHouseServer(tmp_path / "server", users=users) as server,
        Deployment(server, tmp_path / "odd", encoding=encoding) as odd,
    ):
        odd.export()

        for table in TABLES:
            assert odd.rows(table) == plain.rows(table)
        assert [len(odd.rows(table)) for table in TABLES] == [1, 2, 2, 1]


def test_late_rows_are_found_whatever_the_users_profile(tmp_path: Path) -> None:
    scores, hours = TABLES["scores"], [HOUR, EMPTY]
    with ClickHouseServer(tmp_path / "server") as server, Deployment(server, tmp_path / "plain") as plain:
        plain.insert("scores", score("s1"), score("s2", EMPTY.start), score("s3", project_id="p2"))
        plain.insert("scores", score("s1", version=2, deleted=True))
        looks = Changes.of(plain.source)
        fingerprints = looks.fingerprints("p1", scores, hours)
        written = looks.written_since(scores, ["p1", "p2"], EPOCH, DAY, recent_parts=False)
        projects = query_projects(plain.source, [scores])

    users = analyst_with(tmp_path, SHOWN_OTHERWISE)
    with ClickHouseServer(tmp_path / "server", users=users) as server, Deployment(server, tmp_path) as odd:
        looks = Changes.of(odd.source)
        assert looks.fingerprints("p1", scores, hours) == fingerprints
        assert looks.written_since(scores, ["p1", "p2"], EPOCH, DAY, recent_parts=False) == written
        assert query_projects(odd.source, [scores]) == projects


def test_projects_beyond_what_the_users_profile_groups_are_an_error(tmp_path: Path) -> None:
    users = analyst_with(tmp_path, TOLD_OF_ONE)
    with ClickHouseServer(tmp_path / "server", users=users) as server, Deployment(server, tmp_path) as told:
        for project in ("p1", "p2"):
            told.insert("scores", score("s1", project_id=project))
        with pytest.raises(ClickHouseError, match="GROUP BY exceeded"):
            query_projects(told.source, [TABLES["scores"]])
