"""Where Dagster keeps runs, windows and logs when the deployment does not say."""

import os
from importlib.resources import files
from pathlib import Path

import yaml

from langfuse_worker.settings import Settings

# Without these Dagster keeps its state beside the file, wherever a command is started.
_RELATIVE_TO_THE_WORKING_DIRECTORY = ("local_artifact_storage", "compute_logs")


def dagster_home(settings: Settings) -> Path:
    """The instance's directory: DAGSTER_HOME, else here with a dagster.yaml, else LANGFUSE_HOME/dagster.

    The last one is made with the product's own dagster.yaml, so that history and limits do not depend on
    the directory a command is started in.
    """
    if configured := os.environ.get("DAGSTER_HOME"):
        return Path(configured)
    if Path("dagster.yaml").exists():
        return Path.cwd()
    home = (settings.home / "dagster").absolute()
    file = home / "dagster.yaml"
    if not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        content = yaml.safe_load(files("langfuse_worker").joinpath("dagster.yaml").read_text())
        kept = {key: value for key, value in content.items() if key not in _RELATIVE_TO_THE_WORKING_DIRECTORY}
        kept["storage"]["custom"]["config"]["base_dir"] = str(home)
        file.write_text(yaml.safe_dump(kept, sort_keys=False))
    return home
