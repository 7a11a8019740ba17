"""Frequencies as Dagster partitions: one window is one partition key is one object per table."""

from collections.abc import Mapping
from datetime import datetime

import dagster as dg

from langfuse_export.windows import Frequency

# By frequency, of all its projects.
Partitions = Mapping[Frequency, dg.TimeWindowPartitionsDefinition]

_CRON = {
    Frequency.EVERY_20_MINUTES: "*/20 * * * *",
    Frequency.HOURLY: "0 * * * *",
    Frequency.DAILY: "0 0 * * *",
    Frequency.WEEKLY: "0 0 * * 1",
}


def partitions_def(frequency: Frequency, start: datetime) -> dg.TimeWindowPartitionsDefinition:
    """The windows from `start` on, in UTC. Projects of a frequency share one, so that a job can hold them."""
    return dg.TimeWindowPartitionsDefinition(
        start=start, cron_schedule=_CRON[frequency], fmt=frequency.key_format, timezone="UTC"
    )
