"""Tells whether a project's configuration has changed, without keeping what it was."""

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict
from typing import Any

from pydantic import SecretStr

from langfuse_export.project import ProjectExport


def new_salt() -> str:
    """A key of its own for each record, so that equal secrets do not look alike."""
    return secrets.token_hex(16)


def fingerprint(project: ProjectExport, salt: str) -> str:
    """A keyed hash of what decides whether the project's exports succeed, the secret included."""
    parts = {
        "destination": asdict(project.destination),
        "limits": asdict(project.limits),
        "tables": [(table.name, [column.name for column in table.columns]) for table in project.tables],
        "frequency": project.frequency,
        "extension": project.encoding.extension,
        "row_group_rows": project.row_group_rows,
        "layout": project.layout.text,
        "named_collection": project.named_collection,
    }
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
