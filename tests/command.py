"""Runs `langfuse-worker` as a shell does, with stdout and stderr apart and no terminal."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORKER = str(Path(sys.executable).with_name("langfuse-worker"))


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON."""
        return json.loads(self.out)

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The log lines on stderr."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]


def langfuse_worker(*arguments: str, home: Path | None = None, stdin: str = "", **environment: str) -> Ended:
    """Run the command; with `home`, as an embedded deployment under it."""
    variables = {**os.environ, **environment}
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        variables = {**variables, "LANGFUSE_HOME": str(home), "DAGSTER_HOME": str(home), **environment}
    ended = subprocess.run(
        [WORKER, *arguments], env=variables, input=stdin, capture_output=True, text=True, check=False
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
