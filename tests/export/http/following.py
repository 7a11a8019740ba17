"""The consumer of manifests that docs/operations.md shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def follow_of_the_docs() -> Callable[..., None]:
    """Its function, as it stands there."""
    text = (Path(__file__).parents[3] / "docs/operations.md").read_text("utf-8")
    code = text.split("# A consumer that sees every revision\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    return names["follow"]
