"""Reads a catalog from `exports.yaml`; `${NAME}` in a value is the environment variable of that name."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from langfuse_export.catalog.destination import DestinationModel
from langfuse_export.catalog.errors import CatalogError
from langfuse_export.catalog.model import CatalogModel

_SECRETS = {
    name for name, field in DestinationModel.model_fields.items() if "SecretStr" in str(field.annotation)
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


# PyYAML may be built without libyaml's, which is ten times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """Also says where a value is none, and refuses a key that stands twice, the first of which is lost."""

    def construct_document(self, node: yaml.Node) -> Any:
        _refuse_twice(node)
        return super().construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise ConstructorError(None, None, f"{node.value}: {error}", node.start_mark) from None


def _refuse_twice(node: yaml.Node) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twice(item)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, item in node.value:
            if isinstance(key, yaml.ScalarNode):  # PyYAML itself refuses others
                if key.value in seen:
                    raise ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
            _refuse_twice(item)


def read_yaml(path: Path) -> CatalogModel:
    """Read and validate the file.

    Raises:
        CatalogError: one line with the file, the place in it, the value and what is allowed.
    """
    try:
        with path.open(encoding="utf-8") as file:
            document = yaml.load(file, Loader=_Loader)
    except OSError as error:
        raise CatalogError(f"LANGFUSE_EXPORT_CONFIG={path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise CatalogError(f"{path}: not YAML: it contains itself, or is nested too deeply") from None
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
    kind, value = first["type"], first["input"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if kind == "model_type" and not place:
        return "must have the keys destinations and projects"
    if kind == "extra_forbidden":  # its value may be a secret whose name is misspelt
        return f"{place}: there is no such key"
    message = first["msg"].removeprefix("Value error, ")
    if kind in ("missing", "value_error") or _may_be_secret(first["loc"], value):
        return f"{place}: {message}".removeprefix(": ")
    return f"{place}={value!r}: {message}"


def _may_be_secret(place: tuple[int | str, ...], value: Any) -> bool:
    return bool(_SECRETS.intersection(place)) or (isinstance(value, dict | list) and bool(value))
