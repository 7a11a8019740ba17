"""Exports that Langfuse's Postgres has set up."""
