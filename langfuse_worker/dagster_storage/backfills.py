"""Keeps the cancelling of a backfill."""

from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.runs.schema import BulkActionsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._serdes import serialize_value


class CancellingRunStorage(SqlRunStorage):
    """A run storage in which a backfill that somebody cancels stays cancelled.

    The daemon reads a backfill, adds what it has submitted and writes it back, which takes a second where the
    backfill is large; with Dagster's own storage it writes over a cancelling that came meanwhile.
    """

    def update_backfill(self, partition_backfill: PartitionBackfill) -> None:
        """Store the backfill; one that is being cancelled goes on with that."""
        if partition_backfill.status is BulkActionStatus.REQUESTED:
            # One statement: reading and serializing take long enough for somebody to cancel meanwhile.
            statement = (
                BulkActionsTable.update()
                .where(
                    BulkActionsTable.c.key == partition_backfill.backfill_id,
                    BulkActionsTable.c.status != BulkActionStatus.CANCELING.value,
                )
                .values(status=partition_backfill.status.value, body=serialize_value(partition_backfill))
            )
            with self.connect() as connection:
                if connection.execute(statement).rowcount:
                    return
            partition_backfill = partition_backfill.with_status(BulkActionStatus.CANCELING)
        super().update_backfill(partition_backfill)
