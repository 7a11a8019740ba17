"""Dagster's storage, made to bear backfills of hundreds of thousands of table partitions.

Dagster opens a connection and commits for each event, and a backfill plans an event for each table of each
window: most of what a window costs in Dagster is that. Tables and rows are Dagster's own, so an instance may
go back to Dagster's classes at any time. Here many events are one transaction. And a backfill that somebody
cancels stays cancelled, see `backfills`. `dagster.yaml` names these classes as `storage: {custom: ...}`,
that of Dagster's Helm chart one for each part.
"""
