"""Names in Dagster: asset keys, and the narrower names that ops, groups and pools allow."""

import re
import zlib

import dagster as dg

from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency

PROJECT_TAG = "langfuse/project"
FAILURE_TAG = "langfuse/failure"
STATE_TAG = "langfuse/project_state"
MODE_TAG = "langfuse/mode"
LATE = "late"  # value of MODE_TAG, and the mode of such a run

# Dagster's own run tags, as its documentation names them.
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PRIORITY_TAG = "dagster/priority"
MAX_RUNTIME_TAG = "dagster/max_runtime"  # seconds
SCHEDULE_TAG = "dagster/schedule_name"

_LONGEST_TAG = 63  # that Dagster takes as a value


def asset_key(project: ProjectExport, table: Table) -> dg.AssetKey:
    """The key of a project's table."""
    return dg.AssetKey([*project_key(project.project_id), table.name])


def project_key(project_id: str) -> list[str]:
    """What the keys of a project's tables begin with; its id as it is where Dagster takes its characters."""
    is_plain = re.fullmatch(r"[A-Za-z0-9_-]+", project_id)
    return ["langfuse", project_id if is_plain else safe_name(project_id)]


def safe_name(project_id: str) -> str:
    """The project id in letters, digits and underscores, still distinct from every other project's.

    `support-bot` becomes `support_bot`; an id that has underscores or other characters itself gets a suffix,
    and so does one that is too long.
    """
    if re.fullmatch(r"[A-Za-z0-9-]+", project_id) and len(project_id) <= _LONGEST_TAG:
        return project_id.replace("-", "_")
    suffix = f"_{zlib.crc32(project_id.encode()):08x}"
    return re.sub(r"[^A-Za-z0-9_]", "_", project_id)[: _LONGEST_TAG - len(suffix)] + suffix


def op_name(project: ProjectExport) -> str:
    """Name of the project's op, and of the pool that keeps the project from taking every slot."""
    return f"export_{safe_name(project.project_id)}"


def schedule_name(frequency: Frequency, timing: Timing | None) -> str:
    """Name of the schedule of a frequency's projects that share a timing."""
    if timing is None:
        return f"export_{frequency.value}_schedule"
    return f"export_{frequency.value}_{timing.words}_{zlib.crc32(str(timing).encode()):08x}_schedule"


def job_name(frequency: Frequency) -> str:
    """Name of the job that holds every project of a frequency."""
    return f"export_{frequency.value}"
