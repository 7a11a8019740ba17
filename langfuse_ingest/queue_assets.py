"""Queues as observable assets: depth and age over time, with checks that say when consumers fall behind.

A FreshnessPolicy of Dagster looks at materializations alone, and a queue has none; the check `fresh` looks at
the age of the oldest job instead.
"""

import warnings
from collections.abc import Iterator, Sequence

import dagster as dg

from langfuse_ingest.queue_state import QueueState, queue_states
from langfuse_ingest.queues import QueueSpec
from langfuse_worker.redis import running_redis
from langfuse_worker.settings import settings

FRESH = "fresh"
NO_DEAD_LETTERS = "no_dead_letters"
OLDEST_AGE_S = 600.0
GROUP = "queues"


def queue_key(spec: QueueSpec) -> dg.AssetKey:
    """The asset of a queue."""
    return dg.AssetKey(["langfuse_queues", spec.name.replace("-", "_")])


def build_queue_assets(specs: Sequence[QueueSpec]) -> dg.AssetsDefinition:
    """An observable asset for each queue."""
    by_key = {queue_key(spec): spec for spec in specs}

    with warnings.catch_warnings():
        # Nobody who starts a code server can do anything about it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        asset_of_all = dg.multi_observable_source_asset(
            name="observe_queues",
            specs=[
                dg.AssetSpec(
                    key,
                    group_name=GROUP,
                    description=spec.description,
                    kinds={"redis"},
                    metadata={"flag": spec.flag, "shards": spec.shards, "consumers": spec.consumers},
                )
                for key, spec in by_key.items()
            ],
            check_specs=[check for key in by_key for check in _check_specs(key)],
            can_subset=True,
        )

    @asset_of_all
    def observe_queues(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        chosen = {key: spec for key, spec in by_key.items() if key in context.selected_asset_keys}
        with running_redis(settings()) as redis:
            states = queue_states(redis, chosen.values())
        for key, state in zip(chosen, states, strict=True):
            yield _observed(key, state)

    return observe_queues


def build_queue_schedule(assets: dg.AssetsDefinition) -> dg.ScheduleDefinition:
    """Observes every queue each ten minutes."""
    about = "Looks at the depth and the age of every queue, and evaluates their checks."
    # A job with a name, so that the list of runs says what they are.
    job = dg.define_asset_job("observe_all_queues", dg.AssetSelection.assets(*assets.keys), description=about)
    return dg.ScheduleDefinition(
        job=job,
        cron_schedule="*/10 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=about,
    )


def _check_specs(key: dg.AssetKey) -> tuple[dg.AssetCheckSpec, dg.AssetCheckSpec]:
    fresh = f"The oldest waiting job is younger than {OLDEST_AGE_S:.0f} seconds."
    return (
        dg.AssetCheckSpec(FRESH, asset=key, description=fresh),
        dg.AssetCheckSpec(NO_DEAD_LETTERS, asset=key, description="No job has failed for good."),
    )


def _observed(key: dg.AssetKey, state: QueueState) -> dg.ObserveResult:
    fresh = dg.AssetCheckResult(
        asset_key=key,
        check_name=FRESH,
        passed=state.oldest_age_s < OLDEST_AGE_S,
        metadata={"oldest_age_seconds": state.oldest_age_s},
    )
    letters = dg.AssetCheckResult(
        asset_key=key,
        check_name=NO_DEAD_LETTERS,
        passed=state.failed == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"dead_letters": state.failed},
    )
    metadata = {**state.depths, "oldest_age_seconds": state.oldest_age_s}
    return dg.ObserveResult(asset_key=key, metadata=metadata, check_results=[fresh, letters])
