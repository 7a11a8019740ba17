"""When requests arrive: a curve over the day, and instants exactly on and just before the hour."""

from datetime import datetime, timedelta
from random import Random

HOUR = timedelta(hours=1)
_HOUR_US = 3_600_000_000

# Requests per hour of the day in UTC, relative to each other; at 02:00 runs the nightly experiment.
EUROPEAN_DAY = (2, 1, 5, 1, 2, 4, 8, 14, 20, 24, 24, 22, 18, 20, 24, 24, 22, 18, 14, 10, 8, 6, 4, 3)
TWO_SHIFTS = (6, 3, 9, 1, 1, 2, 6, 14, 20, 22, 20, 16, 12, 16, 22, 24, 24, 22, 20, 18, 16, 14, 12, 9)


def starts(rng: Random, hour: datetime, per_day: int, curve: tuple[int, ...]) -> list[datetime]:
    """Starts of the requests of one hour in their order, at least two.

    The first is on the hour, the last a microsecond before the next one (`…59.999` in milliseconds): the
    rows that a wrong window bound loses or exports twice.
    """
    expected = per_day * curve[hour.hour] / sum(curve)
    count = max(2, round(expected * rng.uniform(0.85, 1.15)))
    between = sorted(rng.randrange(_HOUR_US) for _ in range(count - 2))
    return [hour + timedelta(microseconds=offset) for offset in (0, *between, _HOUR_US - 1)]
