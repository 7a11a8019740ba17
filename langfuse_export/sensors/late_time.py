"""How a tick of the late-rows sensor shares out its seconds, and how far back it looks."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from langfuse_export.changes import Changes
from langfuse_export.resources import LateOptions
from langfuse_worker.clickhouse import ClickHouse

# Dagster ends a tick after 60 s, and with it goes the cursor: what does not fit waits for the next one.
TICK_FOR_S = 50
# Of it, for ClickHouse's clock, which is read before anything else,
CLOCK_FOR_S = 10
# and for looking, so that a table that cannot be looked at leaves time to compare.
LOOK_FOR_S = 35
# A comparison that has less does not begin.
COMPARE_IN_S = 5


@dataclass(frozen=True)
class TickTime:
    """The times of one tick.

    Attributes:
        began: when, by the monotonic clock, seconds.
        now: ClickHouse's clock, UTC.
        oldest: windows that end later are looked at.
        margin: how far writers' clocks may be off, plus how long a row takes to be stored.
    """

    began: float
    now: datetime
    oldest: datetime
    margin: timedelta

    @classmethod
    def read(cls, clickhouse: ClickHouse, late: LateOptions) -> Self:
        """A tick that begins now. Raises ClickHouseError."""
        began = time.monotonic()
        now = Changes.of(clickhouse, CLOCK_FOR_S).clock()
        oldest = now - timedelta(hours=late.lookback_hours)
        return cls(began, now, oldest, timedelta(seconds=late.margin_s))

    def left_of(self, seconds: float) -> float:
        """What is left of so many seconds since the tick began."""
        return self.began + seconds - time.monotonic()
