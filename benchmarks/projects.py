"""Deployments of many projects, for the benchmarks of what Dagster costs."""

from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path

import yaml

from tests.servers.clickhouse import ClickHouseServer


def deployment(
    directory: Path,
    projects: int,
    server: ClickHouseServer,
    start: date,
    storage: Mapping[str, object] | None = None,
) -> dict[str, str]:
    """Write `exports.yaml` and `dagster.yaml` of hourly projects with all tables; the worker's variables.

    Args:
        directory: for the home and the exported files; may be missing.
        start: of the projects' first window, UTC.
        storage: what dagster.yaml says of Dagster's own storage; None is SQLite.
    """
    catalog = {
        "destinations": {"files": {"url": f"file://{directory}/blobs/"}},
        "projects": [
            {"id": f"project{number}", "destination": "files", "start": start} for number in range(projects)
        ],
    }
    instance = directory / "home" / "dagster"
    instance.mkdir(parents=True)
    (directory / "exports.yaml").write_text(yaml.safe_dump(catalog))
    content = yaml.safe_load(files("langfuse_worker").joinpath("dagster.yaml").read_text())
    content["storage"]["custom"]["config"]["base_dir"] = str(instance)
    content["storage"] = storage or content["storage"]
    for section in ("local_artifact_storage", "compute_logs"):  # relative to where Dagster is started
        del content[section]
    (instance / "dagster.yaml").write_text(yaml.safe_dump(content))
    return {
        "DAGSTER_HOME": str(instance),
        **server.environment_of_a_worker,
        "LANGFUSE_HOME": str(directory / "home"),
        "LANGFUSE_EXPORT_CONFIG": str(directory / "exports.yaml"),
        "LANGFUSE_WORKER_ROLE": "export",
        "LANGFUSE_LOG_LEVEL": "warning",
    }
