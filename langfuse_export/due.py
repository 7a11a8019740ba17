"""Which windows are due: a tick of the schedule makes those due that ended a lag before it.

Ticks are those of Dagster's daemon, so that both agree on the days on which clocks are put forward or back.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from dagster._utils.schedules import schedule_execution_time_iterator

from langfuse_export.timing import Timing, after_each_window
from langfuse_export.windows import Frequency, Window


@dataclass(frozen=True)
class Due:
    """The windows of a frequency, as a timing makes them due.

    Attributes:
        lag: how long after its end a window may be exported at the earliest.
    """

    frequency: Frequency
    timing: Timing
    lag: timedelta

    @classmethod
    def of(cls, frequency: Frequency, timing: Timing | None, lag: timedelta) -> "Due":
        """Of projects that share both; by default, each window is due by itself, a lag after its end."""
        return cls(frequency, timing or after_each_window(frequency, lag), lag)

    def until(self, moment: datetime) -> datetime:
        """End of the newest window that is due at the moment, UTC."""
        return self._closed(last_ticks(self.timing, moment)[0])

    def due_at(self, end: datetime) -> datetime:
        """When a window that ends there is due, UTC."""
        earliest = (end + self.lag).timestamp()
        ticks = schedule_execution_time_iterator(earliest, self.timing.cron, self.timing.timezone)
        return next(tick for tick in ticks if tick.timestamp() >= earliest).astimezone(UTC)

    def windows(self, since: datetime, until: datetime, lookback: timedelta) -> list[Window]:
        """What ticks from one moment to another look at, oldest first.

        The first of them looks back to the tick before it and by `lookback` beyond: what that tick should
        have asked for is made up for, however far apart ticks are.
        """
        earliest = last_ticks(self.timing, since)[1] - self.lag - lookback
        return list(self.frequency.windows(earliest, self.until(until)))

    def asked_until(self, moment: datetime) -> datetime:
        """End of the newest window that the tick before the last one made due: its run should be over."""
        return self._closed(last_ticks(self.timing, moment)[1])

    def behind(self, exported_until: datetime, moment: datetime) -> int:
        """How many windows that are due at the moment end after what is exported.

        What the last tick made due is on its way: it counts as one window, however many they are.
        """
        asked = self.asked_until(moment)
        missed = max(0, (asked - exported_until) // self.frequency.length)
        return missed + (self.until(moment) > max(asked, exported_until))

    def _closed(self, tick: datetime) -> datetime:
        return self.frequency.floor(tick - self.lag)


def last_ticks(timing: Timing, moment: datetime) -> tuple[datetime, datetime]:
    """The last tick up to the moment, which may be one itself, and the tick before that, UTC."""
    return _last_ticks(timing, moment.replace(second=0, microsecond=0))


@lru_cache(maxsize=256)
def _last_ticks(timing: Timing, minute: datetime) -> tuple[datetime, datetime]:
    ticks = schedule_execution_time_iterator(
        minute.timestamp(), timing.cron, timing.timezone, ascending=False
    )
    return next(ticks).astimezone(UTC), next(ticks).astimezone(UTC)
