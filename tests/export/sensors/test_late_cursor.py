"""What the sensor remembers: rounds of the audit, and windows that wait."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from langfuse_export.project import ProjectExport
from langfuse_export.sensors.late_cursor import Audit, LateCursor, cursor_of
from langfuse_export.windows import Frequency, Window
from langfuse_worker.settings import Settings
from tests.export.dagster.deployment import Deployment as Projects

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def _rounds(project_ids: list[str], hours: int) -> list[list[str]]:
    """The projects that are due in each hour, from the first tick on."""
    audit, due = Audit(), []
    for n in range(hours):
        projects, audit = audit.advance(project_ids, BEGIN + n * HOUR, DAY, HOUR)
        due.append(projects)
    return due


def test_every_project_is_audited_once_a_period_spread_over_its_ticks() -> None:
    ids = [f"p{n:03}" for n in range(100)]

    due = _rounds(ids, 72)

    assert due[:24] == [[]] * 24
    assert max(map(len, due)) == 5
    for day in (1, 2):
        assert [p for projects in due[day * 24 : (day + 1) * 24] for p in projects] == ids


def test_few_projects_are_audited_once_a_period() -> None:
    due = _rounds(["a", "b"], 60)
    assert [n for n, projects in enumerate(due) if projects] == [24, 25, 48, 49]


def test_projects_that_come_and_go_do_not_stop_a_round() -> None:
    audit = Audit(began=BEGIN)
    first, audit = audit.advance(["a", "b", "c"], BEGIN + DAY, DAY, HOUR)
    second, audit = audit.advance(["aa", "c"], BEGIN + DAY + HOUR, DAY, HOUR)
    third, audit = audit.advance([], BEGIN + DAY + 2 * HOUR, DAY, HOUR)

    assert (first, second, third) == (["a"], ["aa"], [])
    assert Audit().advance([], BEGIN, DAY, HOUR)[0] == []


def test_windows_that_wait_survive_as_rows_of_keys(tmp_path: Path) -> None:
    project = _project(tmp_path, Frequency.HOURLY)
    windows = {_hour(n) for n in (1, 2, 3, 7)}
    cursor = cursor_of({}, {("p1", "traces"): windows, ("p1", "scores"): set()}, {"p1": project}, Audit())

    read = LateCursor.parse(cursor.model_dump_json())

    assert read == cursor
    assert read.waiting == {
        "p1": {"traces": [("2026-06-01T01", "2026-06-01T03"), ("2026-06-01T07", "2026-06-01T07")]}
    }
    assert set(read.waiting_windows(project)) == {("traces", window) for window in windows}
    daily = _project(tmp_path, Frequency.DAILY)
    assert list(read.waiting_windows(daily)) == []


def _hour(number: int) -> Window:
    return Frequency.HOURLY.window(BEGIN + number * HOUR)


def _project(home: Path, frequency: Frequency) -> ProjectExport:
    settings = Settings(LANGFUSE_HOME=str(home))  # type: ignore[call-arg]
    return Projects(settings, None, None, None).project(frequency=frequency)  # type: ignore[arg-type]
