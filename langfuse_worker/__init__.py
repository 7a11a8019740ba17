"""The chassis every role stands on: settings, role, ClickHouse, blob stores, telemetry, command line."""
