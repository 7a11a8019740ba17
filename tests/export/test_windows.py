"""Windows: half-open, on the clock, and never with the same name."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langfuse_export.layout import LANGFUSE
from langfuse_export.windows import Frequency, Window

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
FREQUENCIES = st.sampled_from(list(Frequency))


@given(FREQUENCIES, MOMENTS)
def test_every_moment_lies_in_exactly_the_window_that_starts_at_its_floor(
    frequency: Frequency, moment: datetime
) -> None:
    window = frequency.window(frequency.floor(moment))
    assert window.start <= moment < window.end
    assert window.end == frequency.floor(window.end)
    assert frequency.ceil(moment) in (window.start, window.end)


@pytest.mark.defect("D1")
@given(FREQUENCIES, MOMENTS, MOMENTS)
def test_two_windows_of_a_frequency_never_share_a_key(
    frequency: Frequency, one: datetime, other: datetime
) -> None:
    """Defect D1 of Langfuse: windows that end in the same second overwrite each other."""
    first, second = frequency.window(frequency.floor(one)), frequency.window(frequency.floor(other))
    assert (_object_key(first) == _object_key(second)) == (first == second)


@given(FREQUENCIES, MOMENTS)
def test_a_partition_key_leads_back_to_its_window_and_to_no_other_frequency(
    frequency: Frequency, moment: datetime
) -> None:
    window = frequency.window(frequency.floor(moment))
    key = frequency.key(window)
    assert frequency.window_of_key(key) == window
    for other in set(Frequency) - {frequency}:
        assert other.windows_of_keys([key]) == []


@given(FREQUENCIES, MOMENTS)
def test_the_newest_closed_window_ends_less_than_a_window_before_the_moment(
    frequency: Frequency, moment: datetime
) -> None:
    window = frequency.newest_closed(moment)
    assert window.end <= moment < window.end + frequency.length


@pytest.mark.parametrize(
    ("frequency", "start", "stamp", "key"),
    [
        (Frequency.EVERY_20_MINUTES, "2026-06-03T10:20", "2026-06-03T10-40-00", "2026-06-03T10:20"),
        (Frequency.HOURLY, "2026-06-03T10:00", "2026-06-03T11-00-00", "2026-06-03T10"),
        (Frequency.DAILY, "2026-06-03T00:00", "2026-06-04T00-00-00", "2026-06-03"),
        (Frequency.WEEKLY, "2026-06-01T00:00", "2026-06-08T00-00-00", "week-2026-06-01"),
    ],
)
def test_objects_are_named_by_the_end_and_partitions_by_the_start(
    frequency: Frequency, start: str, stamp: str, key: str
) -> None:
    moment = datetime.fromisoformat("2026-06-03T10:35:17+00:00")
    window = frequency.window(frequency.floor(moment))
    if frequency is Frequency.EVERY_20_MINUTES:
        assert window.start.minute == 20
    assert window.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert (_object_key(window), frequency.key(window)) == (f"p1/traces/{stamp}.jsonl", key)


def _object_key(window: Window) -> str:
    return LANGFUSE.key("p1", "traces", window, "jsonl")


def test_a_start_off_the_clock_is_no_window() -> None:
    with pytest.raises(ValueError, match="is not the start of a window that is hourly"):
        Frequency.HOURLY.window(datetime(2026, 6, 1, 12, 30, tzinfo=UTC))
    with pytest.raises(ValueError, match="is not the start"):
        Frequency.WEEKLY.window(datetime(2026, 6, 2, tzinfo=UTC))


def test_a_window_must_end_after_it_starts() -> None:
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    with pytest.raises(ValueError, match="must end after it starts"):
        Window(noon, noon)


def test_windows_between_two_moments_cover_them() -> None:
    start = datetime(2026, 6, 1, 10, 30, tzinfo=UTC)
    windows = list(Frequency.HOURLY.windows(start, start + timedelta(hours=2)))
    assert [window.start.hour for window in windows] == [10, 11, 12]
