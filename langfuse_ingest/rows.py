"""Histories -> the rows that store them, and those that delete what lies under another sorting key."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from langfuse_ingest.event_log import EntityKey
from langfuse_ingest.merge import History, merge
from langfuse_ingest.records import Record
from langfuse_ingest.stored import StoredRow, stored_records, stored_rows, tombstone
from langfuse_ingest.tables import Target, targets
from langfuse_ingest.writer import PendingRow, RefusedRow, pending
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.settings import WriteMode

T = TypeVar("T")


def rows_of(
    clickhouse: ClickHouse, histories: Sequence[History], version: str, mode: WriteMode, *, skip_reads: bool
) -> tuple[dict[str, list[PendingRow]], list[RefusedRow]]:
    """The rows of entities, by table, and whose events cannot be merged or written.

    Args:
        clickhouse: where rows may be already.
        histories: of entities of one kind in one project, at least one.
        version: of the rows.
        mode: decides the tables.
        skip_reads: whether only rows whose sorting key may have changed are looked up.

    Raises:
        ClickHouseError: it cannot be asked what is there.
    """
    found = targets(histories[0].key.entity, mode)
    dated, refused = _each(histories, lambda history: history.days)
    histories = [history for history in histories if history.key in dated]
    known = [history for history in histories if len(history.groups) > 1] if skip_reads else histories
    stored = {target: stored_rows(clickhouse, target, known) for target in found}
    for target in found:
        _add_to_bases(clickhouse, target, known, stored[target])

    def of_history(history: History) -> list[tuple[str, PendingRow]]:
        key, record = history.key, merge(history)
        return [
            (target.table, row)
            for target in found
            for row in _of_target(target, key, record, stored[target].get(key.id, ()), version)
        ]

    merged, unmerged = _each(histories, of_history)
    rows: dict[str, list[PendingRow]] = defaultdict(list)
    for some in merged.values():
        for table, row in some:
            rows[table].append(row)
    return rows, refused + unmerged


def _add_to_bases(
    clickhouse: ClickHouse, target: Target, histories: Sequence[History], stored: dict[str, list[StoredRow]]
) -> None:
    """Give the stored row to those whose row is older than everything that the log knows of them.

    Where several tables have one, the first one's columns count, and the others' that it does not have.
    """
    older = [
        history
        for history in histories
        if any(row.created_at[:23] < history.written_at[:23] for row in stored.get(history.key.id, ()))
    ]
    records = stored_records(clickhouse, target, older)
    for history in older:
        history.base = {**records.get(history.key.id, {}), **(history.base or {})}


def _of_target(
    target: Target, key: EntityKey, record: Record, stored: Iterable[StoredRow], version: str
) -> list[PendingRow]:
    """The merged row as a table holds it, after those that delete stored rows under another sorting key."""
    row = target.row(record)
    if row is None:
        return []
    row[target.id_column] = target.id_prefix + key.id
    moved = [old for old in stored if target.key(old.columns) != target.key(row)]
    return [
        *(pending(key, tombstone(target, key, old), version) for old in moved),
        pending(key, row, version),
    ]


def _each(
    histories: Iterable[History], action: Callable[[History], T]
) -> tuple[dict[EntityKey, T], list[RefusedRow]]:
    """The action's results, and whose events it cannot be applied to.

    The log may hold what no producer of ours has validated; that must not fail its neighbours.
    """
    results: dict[EntityKey, T] = {}
    refused: list[RefusedRow] = []
    for history in histories:
        try:
            results[history.key] = action(history)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            refused.append(RefusedRow(history.key, "the merge", f"{type(error).__name__}: {error}"))
    return results, refused
