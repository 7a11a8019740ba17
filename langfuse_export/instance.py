"""The Dagster instance of this deployment, for what does not run inside Dagster."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import DBAPIError

from langfuse_worker.dagster_home import DagsterStorageError, dagster_home
from langfuse_worker.settings import SettingsError, settings


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance that the UI shows.

    Raises:
        SettingsError: its dagster.yaml cannot be used.
        DagsterStorageError: its storage cannot.
    """
    home = dagster_home(settings())
    try:
        opened = dg.DagsterInstance.from_config(str(home))
    except dg.DagsterInvalidConfigError as error:
        missing = sorted(set(re.findall(r'environment variable "(\w+)" which is not set', str(error))))
        why = f"asks for {', '.join(missing)}: not set" if missing else str(error).partition("\n")[0]
        raise SettingsError(f"{home}/dagster.yaml {why}") from None
    except Exception as error:  # each storage has exceptions of its own
        raise _storage_error(home, error) from error
    try:
        with opened as instance:
            yield instance
    except DBAPIError as error:
        raise _storage_error(home, error) from error


def _storage_error(home: Path, error: BaseException) -> DagsterStorageError:
    """What the database or the file system said, without the statement that SQLAlchemy adds."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = error.orig if isinstance(error, DBAPIError) else error
    return DagsterStorageError(
        f"Dagster's storage, as {home}/dagster.yaml says: {' '.join(str(said).split())}"
    )
