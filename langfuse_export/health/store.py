"""Keeps the health of projects in the Dagster instance, beside runs and cursors: it outlives restarts.

A record is a value of the instance's key-value table. Two processes may change one at the same time, so a
change is written only over the value that it was made from.
"""

from collections.abc import Callable, Iterable

import dagster as dg
import sqlalchemy as db
import structlog
from dagster._core.storage.runs.schema import KeyValueStoreTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from langfuse_export.health.state import Health

log = structlog.get_logger()

_PREFIX = "langfuse_export/health/"
Change = Callable[[Health | None], Health | None]


class HealthStore:
    """Reads and changes the records of one instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        storage = instance.run_storage
        if not isinstance(storage, SqlRunStorage):
            raise TypeError(
                f"{type(storage).__name__}: Dagster's run storage must be SQLite, Postgres or MySQL"
            )
        self._storage = storage

    def read(self, project_ids: Iterable[str]) -> dict[str, Health]:
        """The records of those projects that have one, in one query."""
        values = self._storage.get_cursor_values({_PREFIX + project for project in project_ids})
        parsed = {key.removeprefix(_PREFIX): _parse(key, value) for key, value in values.items()}
        return {project: health for project, health in parsed.items() if health is not None}

    def change(self, project_id: str, change: Change) -> Health | None:
        """Change a record; the function is called again if somebody else was faster.

        Args:
            project_id: whose record.
            change: from the record as it is, None if there is none, to what it shall be.

        Returns:
            the record as it is now.
        """
        key = _PREFIX + project_id
        while True:
            stored = self._storage.get_cursor_values({key}).get(key)
            before = _parse(key, stored) if stored is not None else None
            after = change(before)
            if after == before or self._replace(key, stored, after):
                return after

    def replace(self, project_id: str, before: Health, after: Health | None) -> bool:
        """Write a record if it still is as it was; False if somebody else was faster."""
        key = _PREFIX + project_id
        stored = self._storage.get_cursor_values({key}).get(key)
        return stored is not None and _parse(key, stored) == before and self._replace(key, stored, after)

    def _replace(self, key: str, stored: str | None, after: Health | None) -> bool:
        table = KeyValueStoreTable
        new = after.model_dump_json(exclude_defaults=True) if after else None
        if stored is None and new is None:
            return True
        if stored is None:
            statement: db.Executable = table.insert().values(key=key, value=new)
        else:
            unchanged = db.and_(table.c.key == key, table.c.value == stored)
            statement = (table.update().values(value=new) if new else table.delete()).where(unchanged)
        try:
            with self._storage.connect() as connection:
                return connection.execute(statement).rowcount == 1
        except IntegrityError:  # somebody else made the record first
            return False


def _parse(key: str, value: str) -> Health | None:
    try:
        return Health.model_validate_json(value)
    except ValidationError as error:
        log.warning("health_record_unreadable", record=key, error=str(error))
        return None
