"""When a project of `exports.yaml` is exported."""

from difflib import get_close_matches
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from dagster._utils.schedules import (
    cron_string_iterator,
    has_out_of_range_cron_interval,
    is_valid_cron_string,
)
from dagster._vendored.croniter.croniter import CroniterBadDateError
from pydantic import AfterValidator, Field

from langfuse_export.catalog.strict import StrictModel
from langfuse_export.timing import Timing


def _cron(value: str) -> str:
    line = " ".join(value.split())
    if not is_valid_cron_string(line):
        raise ValueError(
            f"{value!r} is no cron line; it has five fields: minute, hour, day of the month, month, "
            "day of the week, such as '30 6 * * 1-5'"
        )
    if has_out_of_range_cron_interval(line):
        raise ValueError(f"{value!r} has a step beyond its field's range, so it would tick at other times")
    try:
        next(cron_string_iterator(0, line, "UTC"))
    except CroniterBadDateError:
        raise ValueError(f"{value!r} never ticks: no month that it names has such a day") from None
    return line


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        known = sorted(available_timezones())
        similar = get_close_matches(value.title(), known, n=1) or ["Europe/Berlin"]
        raise ValueError(f"{value!r} is no time zone of IANA, such as {similar[0]!r}") from None
    return value


class ScheduleModel(StrictModel):
    """When the windows that are due are asked for; it moves no window."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        description="Minute, hour, day of the month, month, day of the week.",
        examples=["30 6 * * 1-5"],
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", description="Whose clock the cron line is read by.", examples=["Europe/Berlin"]
    )

    @property
    def timing(self) -> Timing:
        """It as the rest of the product has it."""
        return Timing(self.cron, self.timezone)
