"""deploy/compose.yaml as the real Docker Compose understands it; its `config` needs no engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
ENVIRONMENT = ROOT / "deploy" / ".env.example"
_COMMAND = Path(sys.executable).parent / "docker-compose"


def run_config(environment_file: Path) -> subprocess.CompletedProcess[str]:
    """`docker compose config` with the variables of a file, and none of this process."""
    command = [str(_COMMAND), "--file", str(FILE), "--env-file", str(environment_file)]
    return subprocess.run(
        [*command, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": str(environment_file.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def load() -> dict[str, Any]:
    """Everything resolved, with the development defaults."""
    done = run_config(ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
