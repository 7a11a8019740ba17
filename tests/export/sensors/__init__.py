"""Sensors, with a ClickHouse server and a Dagster instance."""
