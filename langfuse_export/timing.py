"""When the windows of a project are asked for: a cron line, read by a clock of some place.

It moves no window: those lie on the clock in UTC, whenever they are exported.
"""

import re
from dataclasses import dataclass
from datetime import timedelta

from langfuse_export.windows import Frequency


@dataclass(frozen=True, order=True)
class Timing:
    """A cron line and the zone of its clock.

    Attributes:
        cron: five fields, such as `30 6 * * 1-5`.
        timezone: of IANA, such as `Europe/Berlin`.
    """

    cron: str
    timezone: str = "UTC"

    @property
    def words(self) -> str:
        """It in letters, digits and underscores, for names; two that differ may have the same."""
        return re.sub(r"[^a-z0-9]+", "_", f"{self.cron} {self.timezone}".lower()).strip("_")

    def __str__(self) -> str:
        return f"{self.cron} {self.timezone}"


def after_each_window(frequency: Frequency, lag: timedelta) -> Timing:
    """Ticks `lag` (rounded up to minutes) after each window's end."""
    minutes = -(-lag // timedelta(minutes=1))
    minute, hour, day = minutes % 60, minutes // 60 % 24, minutes // 1440
    if frequency is Frequency.EVERY_20_MINUTES:
        first = minutes % 20
        return Timing(f"{first},{first + 20},{first + 40} * * * *")
    if frequency is Frequency.HOURLY:
        return Timing(f"{minute} * * * *")
    if frequency is Frequency.DAILY:
        return Timing(f"{minute} {hour} * * *")
    return Timing(f"{minute} {hour} * * {(1 + day) % 7}")
