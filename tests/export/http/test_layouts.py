"""Objects under other keys than Langfuse's: who reads them, and that nothing else about a window changes."""

import json
from datetime import timedelta

import duckdb
import pytest

from langfuse_export.errors import OccupiedError, WindowError
from langfuse_export.layout import KeyTemplate, hive
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency
from tests.export.http.exporting import HOUR, JSONL, PARQUET, Deployment
from tests.export.http.heavy import SECOND_PART, exporter_of_parts, insert_observations
from tests.rows import trace
from tests.servers.clickhouse_http import Fault

NEXT = Frequency.HOURLY.window(HOUR.end)
MIDNIGHT = Frequency.HOURLY.window(HOUR.start.replace(hour=23))
TABLE = [TABLES["traces"]]


@pytest.fixture
def hours(deployment: Deployment) -> Deployment:
    """Three hours of traces in the Hive layout; 'last' began one millisecond before midnight."""
    deployment.layout = hive(Frequency.HOURLY)
    moments = {"noon": HOUR.start, "one": NEXT.start, "last": MIDNIGHT.end - timedelta(milliseconds=1)}
    deployment.insert("traces", *[trace(id, at) for id, at in moments.items()])
    for window in (HOUR, NEXT, MIDNIGHT):
        deployment.export(window)
    return deployment


def test_duckdb_reads_folders_as_columns(hours: Deployment) -> None:
    found = duckdb.execute(
        "SELECT id, project, dt::VARCHAR, hour::INT FROM read_parquet(?, hive_partitioning = true) "
        "WHERE dt = '2026-06-01' AND hour::INT > 12 ORDER BY timestamp",
        [f"{hours.blobs}/traces/**/*.parquet"],
    ).fetchall()
    assert found == [("one", "p1", "2026-06-01", 13), ("last", "p1", "2026-06-01", 23)]


@pytest.mark.parametrize("encoding", [PARQUET, JSONL], ids=lambda e: e.extension)
def test_clickhouse_reads_folders_as_columns(hours: Deployment, encoding: object) -> None:
    if encoding is JSONL:
        hours.encoding = JSONL
        for window in (HOUR, NEXT, MIDNIGHT):
            hours.export(window)
    import chdb  # noqa: PLC0415

    files = f"{hours.blobs}/traces/project=*/dt=*/hour=*/*.{hours.encoding.extension}"
    answer = chdb.query(
        f"SELECT id, project, toString(dt) AS dt, toUInt8(hour) AS hour FROM file('{files}') "
        "WHERE hour > 12 ORDER BY hour SETTINGS use_hive_partitioning = 1",
        "JSONEachRow",
    )
    assert [json.loads(line) for line in str(answer).splitlines()] == [
        {"id": "one", "project": "p1", "dt": "2026-06-01", "hour": 13},
        {"id": "last", "project": "p1", "dt": "2026-06-01", "hour": 23},
    ]


def test_a_late_row_overwrites_the_same_keys_and_counts_the_revision(hours: Deployment) -> None:
    before = hours.files()
    hours.insert("traces", trace("late"))
    exporter = hours.exporter()
    exporter.mode = "late"

    exporter.export(HOUR, TABLE)

    assert hours.files() == before
    assert hours.ids("traces") == ["late", "noon"]
    manifest = hours.manifest()
    assert (manifest.revision, manifest.mode) == (2, "late")
    assert "traces/project=p1/dt=2026-06-01/hour=12/2026-06-01T13-00-00.parquet" in {
        file.key for file in manifest.files
    }
    assert {file.key for file in manifest.files} < set(before)


def test_a_shorter_window_never_overwrites_a_longer_one_by_its_start_either(deployment: Deployment) -> None:
    deployment.layout = KeyTemplate("{table}/{project}/{start:%Y-%m-%d-%H}.{ext}")
    day = Frequency.DAILY.window(HOUR.start.replace(hour=0))
    deployment.insert("traces", trace("noon"))
    deployment.with_(frequency=Frequency.DAILY).export(day)

    with pytest.raises(OccupiedError, match=r"manifests/p1/2026-06-01-00\.json belongs to the window"):
        deployment.export(Frequency.HOURLY.window(day.start))

    assert deployment.ids("traces", day) == ["noon"]


def test_parts_of_a_heavy_window_wait_where_no_pattern_finds_them(deployment: Deployment) -> None:
    deployment.layout = hive(Frequency.HOURLY)
    insert_observations(deployment)
    exporter = exporter_of_parts(deployment, rows=10)
    deployment.server.break_next(Fault("refuse", match=SECOND_PART, code=202))

    with pytest.raises(WindowError):
        exporter.export(HOUR, [TABLES["observations"]])

    folder = "observations/project=p1/dt=2026-06-01/hour=12/2026-06-01T13-00-00"
    waiting = [name for name in deployment.files() if "#" not in name]
    assert f"_incomplete/{folder}/plan.json" in waiting
    assert {name.rpartition("/")[0] for name in waiting} == {f"_incomplete/{folder}"}

    exporter.export(HOUR, [TABLES["observations"]])

    assert deployment.files() == [f"{folder}.parquet"]
    assert len(deployment.ids("observations")) == 20
