"""The export path against ClickHouse over HTTP."""
