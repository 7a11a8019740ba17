"""`langfuse-worker consume | ingest | queues | dead-letters | delete`."""
