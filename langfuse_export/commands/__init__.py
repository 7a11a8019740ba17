"""The commands below `langfuse-worker export`."""

from langfuse_export.commands.app import app

__all__ = ["app"]
