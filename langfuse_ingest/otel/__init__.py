"""OpenTelemetry spans -> Langfuse's ingestion events."""
