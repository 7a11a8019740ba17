"""The code location of exports."""

import dagster as dg

from langfuse_export import definitions
from langfuse_worker.settings import settings


def load_location() -> dg.Definitions:
    """The location as every process loads it, for the environment as it is now."""
    settings.cache_clear()
    loaded = definitions.defs()
    assert isinstance(loaded, dg.Definitions)
    return loaded
