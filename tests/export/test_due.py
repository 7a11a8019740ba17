"""Which windows a schedule's ticks make due, by any clock."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dagster._utils.schedules import schedule_execution_time_iterator
from hypothesis import given, settings
from hypothesis import strategies as st

from langfuse_export.due import Due, last_ticks
from langfuse_export.naming import schedule_name
from langfuse_export.timing import Timing, after_each_window
from langfuse_export.windows import Frequency

BERLIN = ZoneInfo("Europe/Berlin")
LAG = timedelta(minutes=20)
NONE = timedelta(0)
TEN_TWENTY = datetime(2026, 6, 1, 10, 20, tzinfo=UTC)
NIGHTLY = Due.of(Frequency.HOURLY, Timing("0 2 * * *"), LAG)
CRONS = ["30 6 * * 1-5", "30 2 * * *", "15 1-3 * * *", "*/30 * * * *", "0 4 * * 0"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


@pytest.mark.parametrize(
    ("frequency", "lag_minutes", "expected"),
    [
        (Frequency.HOURLY, 20, "20 * * * *"),
        (Frequency.HOURLY, 0, "0 * * * *"),
        (Frequency.HOURLY, 90, "30 * * * *"),
        (Frequency.EVERY_20_MINUTES, 20, "0,20,40 * * * *"),
        (Frequency.EVERY_20_MINUTES, 5, "5,25,45 * * * *"),
        (Frequency.DAILY, 20, "20 0 * * *"),
        (Frequency.DAILY, 90, "30 1 * * *"),
        (Frequency.WEEKLY, 20, "20 0 * * 1"),
        (Frequency.WEEKLY, 60 * 24 * 6 + 61, "1 1 * * 0"),
    ],
)
def test_by_default_ticks_are_a_lag_after_the_windows_end(
    frequency: Frequency, lag_minutes: int, expected: str
) -> None:
    assert after_each_window(frequency, timedelta(minutes=lag_minutes)) == Timing(expected, "UTC")


@pytest.mark.parametrize("frequency", list(Frequency))
def test_by_default_a_tick_looks_at_its_window_and_at_those_of_the_look_back(frequency: Frequency) -> None:
    due = Due.of(frequency, None, LAG)
    tick, before = last_ticks(due.timing, TEN_TWENTY)

    windows = due.windows(tick, tick, timedelta(hours=24))

    assert windows[-1].end == tick - LAG
    assert windows[0].start <= before - LAG - timedelta(hours=24) < windows[0].end
    assert [w.end for w in due.windows(tick, tick, NONE)] == [tick - LAG]


def test_a_nightly_tick_looks_at_the_hours_of_a_day_and_of_a_night_that_was_missed() -> None:
    tick = datetime(2026, 6, 3, 2, 0, tzinfo=UTC)

    assert _span(NIGHTLY, tick, NONE) == ("2026-06-02T01", "2026-06-03T00", 24)
    assert _span(NIGHTLY, tick, timedelta(hours=24)) == ("2026-06-01T01", "2026-06-03T00", 48)


def test_between_two_ticks_nothing_new_is_due() -> None:
    night, evening = datetime(2026, 6, 3, 2, 0, tzinfo=UTC), datetime(2026, 6, 3, 21, 47, 11, tzinfo=UTC)

    assert NIGHTLY.until(evening) == NIGHTLY.until(night) == datetime(2026, 6, 3, 1, tzinfo=UTC)
    assert NIGHTLY.until(night - timedelta(seconds=1)) == datetime(2026, 6, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("exported_until", "behind"),
    [
        (datetime(2026, 6, 3, 1, tzinfo=UTC), 0),
        (datetime(2026, 6, 3, 0, tzinfo=UTC), 1),
        (datetime(2026, 6, 2, 1, tzinfo=UTC), 1),
        (datetime(2026, 6, 2, 0, tzinfo=UTC), 2),
        (datetime(2026, 6, 1, 1, tzinfo=UTC), 25),
        (datetime(2026, 6, 4, 0, tzinfo=UTC), 0),
    ],
)
def test_what_the_last_tick_asked_for_counts_as_one_window(exported_until: datetime, behind: int) -> None:
    for hour in (2, 10, 23):
        assert NIGHTLY.behind(exported_until, datetime(2026, 6, 3, hour, 5, tzinfo=UTC)) == behind


@pytest.mark.parametrize("windows", [0, 1, 2, 7])
def test_by_default_every_due_window_counts(windows: int) -> None:
    due = Due.of(Frequency.HOURLY, None, LAG)
    assert due.behind(TEN_TWENTY - LAG - windows * timedelta(hours=1), TEN_TWENTY) == windows


@pytest.mark.parametrize(
    ("day", "hours"),
    [((2026, 3, 28), 24), ((2026, 3, 29), 23), ((2026, 10, 24), 24), ((2026, 10, 25), 25)],
    ids=["before summer", "into summer", "before winter", "into winter"],
)
def test_a_day_in_berlin_has_as_many_hours_as_its_clocks_say(day: tuple[int, int, int], hours: int) -> None:
    due = Due.of(Frequency.HOURLY, Timing("0 5 * * *", "Europe/Berlin"), LAG)
    at_five = datetime(*day, 5, tzinfo=BERLIN).astimezone(UTC)

    windows = due.windows(at_five, at_five, NONE)

    assert len(windows) == hours
    assert windows[-1].end == at_five - timedelta(hours=1)


def test_a_tick_in_the_hour_that_clocks_leave_out_is_the_first_moment_after_it() -> None:
    half_past_two = Timing("30 2 * * *", "Europe/Berlin")
    noon = datetime(2026, 3, 29, 12, tzinfo=UTC)

    assert last_ticks(half_past_two, noon) == (
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
        datetime(2026, 3, 28, 1, 30, tzinfo=UTC),
    )


@settings(max_examples=50)
@given(
    st.sampled_from([Frequency.HOURLY, Frequency.DAILY, Frequency.WEEKLY]),
    st.builds(Timing, st.sampled_from(CRONS), st.sampled_from(ZONES)),
    # Clocks change in each of these weeks somewhere.
    st.sampled_from(
        [(2026, 3, 6), (2026, 3, 27), (2026, 4, 3), (2026, 10, 2), (2026, 10, 23), (2026, 10, 30)]
    ),
    st.timedeltas(timedelta(0), timedelta(hours=24)),
)
def test_successive_ticks_ask_for_every_window_once(
    frequency: Frequency, timing: Timing, since: tuple[int, int, int], lag: timedelta
) -> None:
    due = Due.of(frequency, timing, lag)
    ticks = schedule_execution_time_iterator(
        datetime(*since, tzinfo=UTC).timestamp(), timing.cron, timing.timezone
    )
    first, *following = (tick.astimezone(UTC) for tick in itertools.islice(ticks, 8))

    asked = [
        window
        for tick in following
        for window in due.windows(tick, tick, NONE)
        if window.end > due.asked_until(tick)
    ]

    assert asked == list(frequency.windows(due.until(first), due.until(following[-1])))
    for tick in following:
        assert all(window.end + lag <= tick for window in due.windows(tick, tick, NONE))


def test_schedules_have_names_of_their_own() -> None:
    timings = [None, *(Timing(cron, zone) for cron in ("30 6 * * 1-5", "30 6 * * 1,5") for zone in ZONES)]
    names = [schedule_name(frequency, timing) for frequency in Frequency for timing in timings]

    assert names[0] == "export_every_20_minutes_schedule"
    assert names[1].startswith("export_every_20_minutes_30_6_1_5_utc_")
    assert len(set(names)) == len(names)
    assert all(name.isascii() and name.replace("_", "a").isalnum() for name in names)


def _span(due: Due, tick: datetime, lookback: timedelta) -> tuple[str, str, int]:
    windows = due.windows(tick, tick, lookback)
    return due.frequency.key(windows[0]), due.frequency.key(windows[-1]), len(windows)
