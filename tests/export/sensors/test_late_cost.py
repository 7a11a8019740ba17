"""What a look for late rows reads in ClickHouse."""

from datetime import timedelta

from structlog.testing import capture_logs

from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency
from langfuse_worker.settings.schedule import LATE_PREFIX
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import PROJECT, trace
from tests.servers.clickhouse_http import Fault


def test_a_look_at_what_has_not_changed_reads_no_table(deployment: Deployment) -> None:
    deployment.write_in_each_table(deployment.hour(2).start)
    deployment.export(deployment.key(2), deployment.key(1))
    deployment.environment = {LATE_PREFIX + "MARGIN_S": "0"}
    del deployment.settings, deployment.source, deployment.defs
    looked = [deployment.look() for _ in range(2)]
    _pass_a_second(deployment)
    looked.append(deployment.look())
    seen = len(deployment.server.requests)

    looked.append(deployment.look())

    assert [look.requests for look in looked] == [[]] * 4
    assert looked[-1].skip_reason == "no window has changed"
    assert deployment.purposes(seen) == ["clock", "late-parts"]


def test_without_a_right_to_see_parts_late_rows_are_found_and_the_log_names_the_grant_once(
    deployment: Deployment,
) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))
    deployment.server.break_next(Fault("refuse", match="system.parts", code=497, status=403, times=-1))

    with capture_logs() as logs:
        assert [asked[0] for asked in deployment.look().asked] == [deployment.key(2)]
        deployment.look()

    grants = [line["grant"] for line in logs if line["event"] == "late_rows_without_parts"]
    assert grants == ["SELECT ON system.parts"]


def test_one_query_a_table_serves_every_project_and_frequency(deployment: Deployment) -> None:
    daily = deployment.project("daily", frequency=Frequency.DAILY)
    deployment.projects = [deployment.project(), deployment.project("it's"), daily]
    yesterday = Frequency.DAILY.window(Frequency.DAILY.floor(deployment.began) - timedelta(days=1))
    for project in deployment.projects:
        key = project.frequency.key(yesterday) if project is daily else deployment.key(30)
        assert deployment.export(key, key, project=project).success
    at = {"daily": yesterday.start, PROJECT: deployment.hour(30).start, "it's": deployment.hour(30).start}
    rows = [{**trace("late", moment), "project_id": project} for project, moment in at.items()]
    deployment.write("traces", *rows)
    paused = {**trace("late", yesterday.start), "project_id": "not exported"}
    deployment.write("traces", paused)
    seen = len(deployment.server.requests)

    look = deployment.look()

    assert deployment.purposes(seen).count("late-rows") == 4
    assert {(request.job_name, len(request.asset_selection or ())) for request in look.requests} == {
        ("export_hourly", 1),
        ("export_daily", 1),
    }
    assert len(look.requests) == 3


def test_a_look_reads_a_small_share_of_the_rows(deployment: Deployment) -> None:
    """600 000 rows of ten days in few parts: a look without news, with a late row, and after a merge."""
    deployment.environment = {LATE_PREFIX + "MARGIN_S": "0"}
    columns = {"traces": ("", ""), "observations": (", type", ", 'SPAN'")}
    columns["events_full"] = (", type, trace_id", ", 'SPAN', 't'")
    for table, (names, values) in columns.items():
        spec = TABLES["events" if table == "events_full" else table]
        deployment.server.execute(
            f"INSERT INTO {table} (project_id, {spec.id_column}, {spec.time_column}, created_at, updated_at, "
            f"event_ts{names}) SELECT 'p' || toString(number % 5), toString(generateUUIDv4()), now64(3) - "
            f"toIntervalSecond(number * 86400 / 20000) AS t, t, t, t{values} FROM numbers(200000)"
        )
    _pass_a_second(deployment)
    deployment.look()

    quiet = _share_read(deployment)
    deployment.write("traces", trace("late", deployment.hour(50).start))
    one_late = _share_read(deployment)
    deployment.write("traces", trace("later", deployment.hour(50).start))
    deployment.server.execute("OPTIMIZE TABLE traces FINAL")
    merged = _share_read(deployment)

    assert quiet < 0.0001
    assert one_late < 0.0001
    assert merged < 0.7 / 3 * 1.1  # seven of ten days of one of three tables


def _pass_a_second(deployment: Deployment) -> None:
    """Parts are dated to the second: let the server's clock pass the one of the writes."""
    deployment.server.execute("SELECT sleepEachRow(1.1)")


def _share_read(deployment: Deployment) -> float:
    """Which share of all rows a look reads."""
    seen = _read_rows(deployment)
    deployment.look()
    return (_read_rows(deployment) - seen) / 600_000


def _read_rows(deployment: Deployment) -> int:
    [row] = deployment.server.finished_queries(
        "toUInt32(sum(read_rows)) AS n", 'log_comment LIKE \'%"purpose": "late-%\''
    )
    return int(row["n"])
