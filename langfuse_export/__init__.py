"""Scheduled, verified exports of Langfuse's ClickHouse tables to blob storage: a Dagster code location."""
