"""RQ consumers that ingest Langfuse's events, and the Dagster code location that operates them."""
