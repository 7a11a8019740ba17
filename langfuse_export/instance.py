"""The Dagster instance of this deployment, for what does not run inside Dagster."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from langfuse_worker.dagster_home import dagster_home
from langfuse_worker.settings import SettingsError, settings


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance that the UI shows. Raises SettingsError where its dagster.yaml cannot be used."""
    home = dagster_home(settings())
    try:
        opened = dg.DagsterInstance.from_config(str(home))
    except dg.DagsterInvalidConfigError as error:
        missing = sorted(set(re.findall(r'environment variable "(\w+)" which is not set', str(error))))
        why = f"asks for {', '.join(missing)}: not set" if missing else str(error).partition("\n")[0]
        raise SettingsError(f"{home}/dagster.yaml {why}") from None
    with opened as instance:
        yield instance
