"""Every environment variable of the product, typed. Names are Langfuse's where Langfuse has one.

The environment comes first, then a `.env` file in the working directory. A wrong value never travels
further than `load_settings`, which names the variable, the value (masked if it is a secret) and the remedy.
"""

from langfuse_worker.settings.environment import (
    Settings,
    SettingsError,
    environment_names,
    load_settings,
    settings,
    variable,
)
from langfuse_worker.settings.ingestion import WriteMode

__all__ = [
    "Settings",
    "SettingsError",
    "WriteMode",
    "environment_names",
    "load_settings",
    "settings",
    "variable",
]
