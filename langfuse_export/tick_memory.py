"""The last tick of each project in the Dagster instance: it outlives restarts, and records of ticks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from langfuse_export.project import ProjectExport
from langfuse_export.windows import Frequency

_MEMORY = "langfuse_export/last_tick/"


@dataclass(frozen=True)
class LastTick:
    """The last tick of a project after which nothing was left to ask for, or the first one of its frequency.

    Attributes:
        frequency: the project's then.
        moment: when, UTC.
        since: start of the first window that the project lacked when its frequency changed, UTC; None once
            nothing is left to ask for.
    """

    frequency: Frequency
    moment: datetime
    since: datetime | None = None


class TickMemory:
    """Last ticks by project id."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._storage = instance.run_storage

    def read(self, projects: Iterable[ProjectExport]) -> dict[str, LastTick]:
        """The last tick of each project that had one."""
        stored = self._storage.get_cursor_values({_MEMORY + project.project_id for project in projects})
        return {key.removeprefix(_MEMORY): _parse(value) for key, value in stored.items()}

    def write(self, ticks: Mapping[str, LastTick]) -> None:
        """Remember ticks."""
        values = {_MEMORY + project_id: _text(tick) for project_id, tick in ticks.items()}
        known = self._storage.get_cursor_values(set(values)).keys()
        for some in (known, values.keys() - known):  # with SQLite, Dagster sets either new values or old ones
            if some:
                self._storage.set_cursor_values({key: values[key] for key in some})


def _parse(value: str) -> LastTick:
    frequency, *moments = value.split()
    return LastTick(Frequency(frequency), *map(datetime.fromisoformat, moments))


def _text(tick: LastTick) -> str:
    moments = [tick.moment, *([tick.since] if tick.since else [])]
    return " ".join([tick.frequency.value, *(moment.isoformat() for moment in moments)])
