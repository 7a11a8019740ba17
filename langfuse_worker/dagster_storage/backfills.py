"""Keeps the cancelling of a backfill."""

import sqlalchemy as db
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.runs.schema import BulkActionsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage


class CancellingRunStorage(SqlRunStorage):
    """A run storage in which a backfill that somebody cancels stays cancelled.

    The daemon reads a backfill, adds what it has submitted and writes it back, which takes a second where the
    backfill is large; with Dagster's own storage it writes over a cancelling that came meanwhile.
    """

    def update_backfill(self, partition_backfill: PartitionBackfill) -> None:
        """Store the backfill; one that is being cancelled goes on with that."""
        if partition_backfill.status is BulkActionStatus.REQUESTED:
            with self.connect() as connection:
                key = BulkActionsTable.c.key == partition_backfill.backfill_id
                status = connection.execute(db.select(BulkActionsTable.c.status).where(key)).scalar()
            if status == BulkActionStatus.CANCELING.value:
                partition_backfill = partition_backfill.with_status(BulkActionStatus.CANCELING)
        super().update_backfill(partition_backfill)
