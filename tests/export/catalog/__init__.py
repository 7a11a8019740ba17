"""The catalog, as `exports.yaml` says it."""
