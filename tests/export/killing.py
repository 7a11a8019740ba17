"""Runs whose worker vanishes without a word."""

from collections.abc import Iterable, Mapping

import dagster as dg


def kill_a_run(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    tags: Mapping[str, str],
    assets: Iterable[dg.AssetKey] = (),
) -> None:
    """A run, of all assets by default, that began and whose worker vanished, as run monitoring finds it."""
    run = instance.create_run_for_job(
        job,
        tags=dict(tags),
        asset_selection=frozenset(assets or job.asset_layer.executable_asset_keys),
    )
    instance.report_engine_event("started", run)
    instance.report_run_failed(run)
