"""What became of windows of many assets, in one query of Dagster's event log.

`DagsterInstance.get_status_by_partition` takes several queries and some 20 ms for each asset, which a tick
over hundreds of projects cannot afford. Almost every window has been exported or was never asked for, and the
newest events of a partition say so by themselves; only the rest is asked for asset by asset.

Each function raises TypeError if Dagster's event log is not in SQLite, Postgres or MySQL.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from sqlalchemy.engine import Connection

_EXPORTED = dg.DagsterEventType.ASSET_MATERIALIZATION.value
_PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
# Variables of one statement; SQLite takes 32 766.
_ASSETS_AT_ONCE = 1_000
_KEYS_AT_ONCE = 30_000

Statuses = dict[str, AssetPartitionStatus | None]
_Events = db.Select[Any, Any, Any]


@dataclass(frozen=True)
class Outcomes:
    """What became of an asset's partitions.

    Attributes:
        statuses: by key, that of the last attempt; None for one that was never attempted.
        exported: keys of those that have an object, whatever became of later attempts.
    """

    statuses: Statuses
    exported: Sequence[str]

    @property
    def failed(self) -> set[str]:
        """Keys of those whose last attempt failed."""
        return {key for key, status in self.statuses.items() if status is AssetPartitionStatus.FAILED}


def partition_outcomes(
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey],
    keys: Sequence[str],
    partitions: dg.TimeWindowPartitionsDefinition,
) -> dict[dg.AssetKey, Outcomes]:
    """What became of partitions of each asset, in the order of the keys."""
    newest = _newest_events(instance, assets, keys)
    found: dict[dg.AssetKey, Outcomes] = {}
    for asset in assets:
        events = newest.get(asset.to_string(), {})
        statuses: Statuses = {key: _status(events.get(key, {})) for key in keys}
        doubtful = [key for key in keys if _is_unfinished(events.get(key, {}))]
        if doubtful:
            statuses |= instance.get_status_by_partition(asset, doubtful, partitions) or {}
        found[asset] = Outcomes(statuses, [key for key in keys if _EXPORTED in events.get(key, {})])
    return found


def failed_partitions(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    keys: Sequence[str],
    partitions: dg.TimeWindowPartitionsDefinition,
) -> set[str]:
    """Those of an asset's partitions whose last attempt failed; without keys there is no query."""
    if not keys:
        return set()
    return partition_outcomes(instance, [asset], keys, partitions)[asset].failed


def exported_partitions(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey], keys: Sequence[str]
) -> set[str]:
    """Those of the partitions that each of the assets has, whatever became of later attempts."""
    newest = _newest_events(instance, assets, keys)
    by_asset = [newest.get(asset.to_string(), {}) for asset in assets]
    return {key for key in keys if all(_EXPORTED in events.get(key, {}) for events in by_asset)}


def unfinished_partitions(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey], keys: Sequence[str]
) -> dict[dg.AssetKey, set[str]]:
    """Of the partitions, those whose last attempt has left no materialization: it failed, or goes on.

    A statement for a thousand assets, which answers with these few alone.
    """
    columns = (SqlEventLogStorageTable.c.asset_key, SqlEventLogStorageTable.c.partition)
    is_unfinished = _newest(_PLANNED) > _newest(_EXPORTED)
    found: dict[str, set[str]] = defaultdict(set)
    for connection, events, _, _ in _in_chunks(instance, assets, keys):
        chosen = events.group_by(*columns).with_only_columns(*columns).having(is_unfinished)
        for name, key in connection.execute(chosen):
            found[name].add(key)
    return {asset: found[asset.to_string()] for asset in assets}


def unattempted_partitions(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey], keys: Sequence[str]
) -> dict[dg.AssetKey, set[str]]:
    """Of the partitions, those that no run was ever meant to export.

    Most assets have an event of every partition, which their number says without reading them.
    """
    name_of, key_of = SqlEventLogStorageTable.c.asset_key, SqlEventLogStorageTable.c.partition
    found: dict[str, set[str]] = defaultdict(set)
    for connection, events, names, some_keys in _in_chunks(instance, assets, keys):
        count = events.group_by(name_of).with_only_columns(name_of, db.func.count(key_of.distinct()))
        known = dict(connection.execute(count).tuples().all())
        lacking = [name for name in names if known.get(name, 0) < len(some_keys)]
        for name in lacking:
            found[name].update(some_keys)
        each = events.where(name_of.in_(lacking)).with_only_columns(name_of, key_of).distinct()
        for name, key in connection.execute(each) if lacking else ():
            found[name].discard(key)
    return {asset: found[asset.to_string()] for asset in assets}


def _newest(kind: str) -> db.ColumnElement[int]:
    events = SqlEventLogStorageTable.c
    return db.func.max(db.case((events.dagster_event_type == kind, events.id), else_=0))


def _newest_events(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey], keys: Sequence[str]
) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """By asset, partition and type of event, the id of the newest one that no wipe has forgotten."""
    columns = SqlEventLogStorageTable.c
    by = (columns.asset_key, columns.partition, columns.dagster_event_type)
    found: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for connection, events, _, _ in _in_chunks(instance, assets, keys):
        newest = events.group_by(*by).with_only_columns(*by, db.func.max(columns.id))
        for name, key, kind, newest_id in connection.execute(newest):
            found[name][key][kind] = newest_id
    return found


def _in_chunks(
    instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey], keys: Sequence[str]
) -> Iterator[tuple[Connection, _Events, Sequence[str], Sequence[str]]]:
    """What was planned and exported of some of the assets and keys at a time, and which those are.

    What a wipe has forgotten is not among it.
    """
    names = [asset.to_string() for asset in assets]
    with _storage(instance).index_connection() as connection:
        for some in _chunks(names, _ASSETS_AT_ONCE):
            for some_keys in _chunks(keys, _KEYS_AT_ONCE):
                yield connection, _events(some, some_keys), some, some_keys


def _storage(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"{type(storage).__name__}: Dagster's event log must be in SQLite, Postgres or MySQL")
    return storage


def _chunks(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


def _events(assets: Sequence[str], keys: Sequence[str]) -> _Events:
    events, known = SqlEventLogStorageTable.c, AssetKeyTable.c
    return (
        db.select(events.asset_key, events.partition, events.dagster_event_type)
        .select_from(SqlEventLogStorageTable.outerjoin(AssetKeyTable, known.asset_key == events.asset_key))
        .where(
            events.asset_key.in_(assets),
            events.dagster_event_type.in_((_EXPORTED, _PLANNED)),
            events.partition.in_(keys),
            db.or_(known.wipe_timestamp.is_(None), events.timestamp > known.wipe_timestamp),
        )
    )


def _status(newest: Mapping[str, int]) -> AssetPartitionStatus | None:
    return AssetPartitionStatus.MATERIALIZED if _EXPORTED in newest else None


def _is_unfinished(newest: Mapping[str, int]) -> bool:
    """Whether the last attempt has left no materialization: it failed, or goes on."""
    return newest.get(_PLANNED, 0) > newest.get(_EXPORTED, 0)
