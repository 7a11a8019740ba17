"""Frequencies and the windows they cut time into: half-open, aligned to the clock in UTC."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Window:
    """The rows with `start <= time < end`, both timezone-aware UTC and on whole seconds."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"a window must end after it starts: {self.start} .. {self.end}")

    @property
    def start_ms(self) -> int:
        """Milliseconds since the epoch."""
        return round(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """Milliseconds since the epoch."""
        return round(self.end.timestamp() * 1000)

    def contains(self, other: Self) -> bool:
        """Whether every instant of the other window lies in this one."""
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"


def iso(moment: datetime) -> str:
    """ISO 8601 to the millisecond with a Z, as manifests and logs write it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Frequency(StrEnum):
    """How often a project is exported; a window is as long as the frequency."""

    EVERY_20_MINUTES = "every_20_minutes"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"

    @property
    def length(self) -> timedelta:
        """Length of a window."""
        return _LENGTHS[self]

    @property
    def key_format(self) -> str:
        """strftime format of a window's partition key, made from its start.

        It differs by frequency: with a shared format, a project that goes from 20 minutes to hourly would
        show the hour as done when only its first 20 minutes are.
        """
        return _KEY_FORMATS[self]

    def floor(self, moment: datetime) -> datetime:
        """Start of the window that holds the moment. Weeks start on Monday."""
        origin = MONDAY if self is Frequency.WEEKLY else EPOCH
        return moment - (moment - origin) % self.length

    def ceil(self, moment: datetime) -> datetime:
        """The first window start that is not before the moment."""
        return self.floor(moment + self.length - timedelta(microseconds=1))

    def window(self, start: datetime) -> Window:
        """The window that starts there; raises ValueError off the clock's grid."""
        if self.floor(start) != start:
            raise ValueError(f"{iso(start)} is not the start of a window that is {self.value}")
        return Window(start, start + self.length)

    def key(self, window: Window) -> str:
        """The window's partition key."""
        return window.start.strftime(self.key_format)

    def window_of_key(self, key: str) -> Window:
        """The window of a partition key; raises ValueError if the key is none of this frequency."""
        return self.window(datetime.strptime(key, self.key_format).replace(tzinfo=UTC))

    def windows_of_keys(self, keys: Iterable[str]) -> list[Window]:
        """The windows of partition keys, in order; keys of other frequencies are left out."""
        windows = []
        for key in keys:
            with suppress(ValueError):
                windows.append(self.window_of_key(key))
        return sorted(windows)

    def windows(self, start: datetime, end: datetime) -> Iterator[Window]:
        """Every window that overlaps [start, end), in order."""
        at = self.floor(start)
        while at < end:
            yield self.window(at)
            at += self.length

    def newest_closed(self, moment: datetime) -> Window:
        """The latest window that has ended by the moment."""
        return self.window(self.floor(moment) - self.length)


def window_of_key(key: str) -> Window | None:
    """The window of a partition key of any frequency; None if it is a key of none."""
    return next((window for frequency in Frequency for window in frequency.windows_of_keys([key])), None)


_LENGTHS = {
    Frequency.EVERY_20_MINUTES: timedelta(minutes=20),
    Frequency.HOURLY: timedelta(hours=1),
    Frequency.DAILY: timedelta(days=1),
    Frequency.WEEKLY: timedelta(weeks=1),
}

_KEY_FORMATS = {
    Frequency.EVERY_20_MINUTES: "%Y-%m-%dT%H:%M",
    Frequency.HOURLY: "%Y-%m-%dT%H",
    Frequency.DAILY: "%Y-%m-%d",
    Frequency.WEEKLY: "week-%Y-%m-%d",
}
