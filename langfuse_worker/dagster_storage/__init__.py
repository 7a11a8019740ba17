"""Dagster's storage, with an event log that writes many events in one transaction.

Dagster opens a connection and commits for each event, and a backfill plans an event for each table of each
window: most of what a window costs in Dagster is that. Tables and rows are Dagster's own, so an instance may
go back to Dagster's classes at any time. `dagster.yaml` names these classes as `storage: {custom: ...}`.
"""
