"""Keeps what a run plans to check small, and has its evaluations find it."""

from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationPlanned,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage


class OncePlannedChecks(SqlEventLogStorage):
    """An event log in which a run plans a check once, however many windows it has.

    Checks of exports are evaluated once for all windows of a run. Dagster plans them for each window, with a
    row that holds all of the event: most of what a backfill stores, which no evaluation ever finds again. Nor
    does it find what is planned for the only window of a run, which would be listed as skipped for ever.
    """

    def _store_asset_check_evaluation_planned(self, event: EventLogEntry, event_id: int | None) -> None:
        dagster_event = event.get_dagster_event()
        planned = dagster_event.event_specific_data
        assert isinstance(planned, AssetCheckEvaluationPlanned)
        if planned.partitions_subset is not None and len(planned.partitions_subset) > 1:
            once = AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
            event = event._replace(dagster_event=dagster_event._replace(event_specific_data=once))
        super()._store_asset_check_evaluation_planned(event, event_id)

    def _update_asset_check_evaluation(self, event: EventLogEntry, event_id: int | None) -> None:
        evaluation = event.get_dagster_event().event_specific_data
        assert isinstance(evaluation, AssetCheckEvaluation)
        if evaluation.partition is None:
            rows = AssetCheckExecutionsTable.c
            planned = AssetCheckExecutionsTable.update().where(
                rows.asset_key == evaluation.asset_key.to_string(),
                rows.check_name == evaluation.check_name,
                rows.run_id == event.run_id,
            )
            with self.index_connection() as connection:
                connection.execute(planned.values(partition=None))
        super()._update_asset_check_evaluation(event, event_id)
