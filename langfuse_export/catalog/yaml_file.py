"""Reads a catalog from `exports.yaml`; `${NAME}` in a value is the environment variable of that name."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from langfuse_export.catalog.destination import DestinationModel
from langfuse_export.catalog.errors import CatalogError
from langfuse_export.catalog.model import CatalogModel

_SECRETS = {
    name for name, field in DestinationModel.model_fields.items() if "SecretStr" in str(field.annotation)
}
# PyYAML may be built without libyaml's, which is ten times as fast.
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_yaml(path: Path) -> CatalogModel:
    """Read and validate the file.

    Raises:
        CatalogError: one line with the file, the place in it, the value and what is allowed.
    """
    try:
        document = yaml.load(path.read_text("utf-8"), Loader=_SafeLoader)
    except OSError as error:
        raise CatalogError(f"LANGFUSE_EXPORT_CONFIG={path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return CatalogModel.model_validate(_expand(document, str(path)))
    except ValidationError as error:
        raise CatalogError(f"{path}: {_first(error)}") from None


def _expand(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, f"{place}: {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, place) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _environment(match[1], place), value)
    return value


def _environment(name: str, place: str) -> str:
    if name not in os.environ:
        raise CatalogError(f"{place}: the environment variable {name} is not set")
    return os.environ[name]


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("missing", "value_error") or _SECRETS.intersection(first["loc"]):
        return f"{place.lstrip('.')}: {message}".removeprefix(": ")
    return f"{place.lstrip('.')}={first['input']!r}: {message}"
