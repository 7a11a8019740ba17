"""Statuses of windows in one query: the same as Dagster's own, whatever became of them."""

from collections.abc import Iterator

import dagster as dg
import pytest

from langfuse_export.partition_statuses import partition_outcomes, unfinished_partitions
from langfuse_export.partitions import partitions_def
from langfuse_export.windows import Frequency
from tests.export.dagster.deployment import START

KEYS = [f"2026-06-01T0{hour}" for hour in range(6)]
PARTITIONS = partitions_def(Frequency.HOURLY, START)
RANGE = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[2]}


def _asset(name: str, exported: list[str]) -> dg.AssetsDefinition:
    """An asset whose runs fail after they have materialized some of their partitions."""

    @dg.multi_asset(
        specs=[dg.AssetSpec(name, skippable=True, partitions_def=PARTITIONS)],
        name=name,
        backfill_policy=dg.BackfillPolicy.multi_run(24),
    )
    def export(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for key in exported:
            context.log_event(dg.AssetMaterialization(name, partition=key))
        if set(context.partition_keys) - set(exported):
            raise dg.Failure("the rest")
        yield from ()

    return export


def _run(asset: dg.AssetsDefinition, instance: dg.DagsterInstance) -> bool:
    job = dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, tags=RANGE, raise_on_error=False).success


@pytest.mark.parametrize("wiped", [False, True], ids=["", "after a wipe"])
def test_exported_failed_unknown_and_wiped_windows_are_told_apart(
    instance: dg.DagsterInstance, wiped: bool
) -> None:
    assert not _run(_asset("half", KEYS[:1]), instance)
    assert _run(_asset("whole", KEYS[:3]), instance)
    if wiped:
        instance.wipe_assets([dg.AssetKey("whole")])
    assets = [dg.AssetKey(name) for name in ("half", "whole", "unknown")]

    found = partition_outcomes(instance, assets, KEYS, PARTITIONS)

    names = {
        asset.to_user_string(): [s and s.name for s in found[asset].statuses.values()] for asset in assets
    }
    exported = {asset.to_user_string(): found[asset].exported for asset in assets}
    assert exported == {"half": KEYS[:1], "whole": [] if wiped else KEYS[:3], "unknown": []}
    assert names == {
        "half": ["MATERIALIZED", "FAILED", "FAILED", None, None, None],
        "whole": [None] * 6 if wiped else ["MATERIALIZED"] * 3 + [None] * 3,
        "unknown": [None] * 6,
    }
    for asset in assets:
        own = instance.get_status_by_partition(asset, KEYS, PARTITIONS) or {}
        assert found[asset].statuses == {key: own.get(key) for key in KEYS}
    unfinished = unfinished_partitions(instance, assets, KEYS)
    assert {asset.to_user_string(): keys for asset, keys in unfinished.items()} == {
        "half": set(KEYS[1:3]),
        "whole": set(),
        "unknown": set(),
    }


def test_a_failed_attempt_after_an_export_is_a_failure(instance: dg.DagsterInstance) -> None:
    assert _run(_asset("whole", KEYS[:3]), instance)
    assert not _run(_asset("whole", []), instance)

    found = partition_outcomes(instance, [dg.AssetKey("whole")], KEYS[:3], PARTITIONS)

    own = instance.get_status_by_partition(dg.AssetKey("whole"), KEYS[:3], PARTITIONS)
    assert found[dg.AssetKey("whole")].statuses == own
    assert found[dg.AssetKey("whole")].exported == KEYS[:3]
    assert {status and status.name for status in (own or {}).values()} == {"FAILED"}
    assert unfinished_partitions(instance, [dg.AssetKey("whole")], KEYS) == {
        dg.AssetKey("whole"): set(KEYS[:3])
    }


def test_more_assets_than_fit_into_one_statement(instance: dg.DagsterInstance) -> None:
    assert _run(_asset("whole", KEYS[:3]), instance)
    unknown = [dg.AssetKey(["langfuse", f"p{n}", "traces"]) for n in range(2_500)]

    found = partition_outcomes(instance, [*unknown, dg.AssetKey("whole")], KEYS, PARTITIONS)

    assert len(found) == 2_501
    assert all(found[asset].statuses == dict.fromkeys(KEYS) for asset in unknown)
    assert found[dg.AssetKey("whole")].exported == KEYS[:3]


def test_more_windows_than_fit_into_one_statement(instance: dg.DagsterInstance) -> None:
    assert _run(_asset("whole", KEYS[:3]), instance)
    others = [f"window {n}" for n in range(70_000)]

    found = partition_outcomes(instance, [dg.AssetKey("whole")], [*others, *KEYS], PARTITIONS)

    assert found[dg.AssetKey("whole")].exported == KEYS[:3]
