"""Runs of exports in this process."""

from collections.abc import Mapping, Sequence

import dagster as dg

from langfuse_export.naming import RANGE_END_TAG, RANGE_START_TAG

# Its log lines say what the export's own say.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_between(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey],
    bounds: tuple[str, str],
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """A run of assets over the windows between two partition keys, both included, however it ends."""
    first, last = bounds
    return job.execute_in_process(
        instance=instance,
        asset_selection=list(assets),
        tags={**(tags or {}), RANGE_START_TAG: first, RANGE_END_TAG: last},
        run_config=_QUIET,
        raise_on_error=False,
    )
