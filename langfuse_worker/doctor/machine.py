"""What this machine has."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from langfuse_worker.doctor.finding import Check, Finding, ok, problem, warning
from langfuse_worker.settings import Settings

_SCARCE_BYTES = 5 << 30
_FULL_BYTES = 200 << 20


def machine_checks(settings: Settings) -> Sequence[Check]:
    """The checks of any role."""
    return [Check("disk", lambda: _disk(settings.home))]


def _disk(home: Path) -> Iterator[Finding]:
    directory = home.absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    text = f"{free / 1e9:,.1f} GB free for LANGFUSE_HOME={home}"
    if free < _FULL_BYTES:
        yield problem("disk", text, "make room: Dagster's state and embedded engines are written there")
    elif free < _SCARCE_BYTES:
        yield warning("disk", text, "make room, or choose another LANGFUSE_HOME")
    else:
        yield ok("disk", text)
