"""Where Dagster keeps runs, windows and logs when the deployment does not say."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from langfuse_worker.settings import Settings, SettingsError

# Without these Dagster keeps its state beside the file, wherever a command is started.
_RELATIVE_TO_THE_WORKING_DIRECTORY = ("local_artifact_storage", "compute_logs")


class DagsterStorageError(Exception):
    """Dagster's storage does not answer, or cannot be written to; the message is one line."""


def dagster_home(settings: Settings) -> Path:
    """The instance's directory: DAGSTER_HOME, else here with a dagster.yaml, else LANGFUSE_HOME/dagster.

    The last one is made with the product's own dagster.yaml, so that history and limits do not depend on
    the directory a command is started in.

    Raises:
        SettingsError: there is no such directory, or it cannot be made.
    """
    if configured := os.environ.get("DAGSTER_HOME"):
        path = Path(configured).expanduser()
        if not (path.is_absolute() and path.is_dir()):
            raise SettingsError(f"DAGSTER_HOME={configured}: must be the absolute path of a directory")
        return path
    if Path("dagster.yaml").exists():
        return Path.cwd()
    home = (settings.home / "dagster").absolute()
    file = home / "dagster.yaml"
    with home_errors(settings):
        if not file.exists():
            home.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(_own_instance(home), sort_keys=False))
    return home


@contextmanager
def home_errors(settings: Settings) -> Iterator[None]:
    """Raise SettingsError for what the file system refuses below LANGFUSE_HOME."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"LANGFUSE_HOME={settings.home}: {error.filename}: {error.strerror}") from None


def _own_instance(home: Path) -> dict[str, Any]:
    """The product's dagster.yaml with its state in a directory."""
    content = yaml.safe_load(files("langfuse_worker").joinpath("dagster.yaml").read_text())
    kept = {key: value for key, value in content.items() if key not in _RELATIVE_TO_THE_WORKING_DIRECTORY}
    kept["storage"]["custom"]["config"]["base_dir"] = str(home)
    return kept
