"""The Dagster side of exports, on the embedded engine."""
