"""Every destination of the catalog."""

from collections.abc import Iterator
from functools import partial

from langfuse_export.doctor.subject import Subject
from langfuse_worker.doctor import Check, Finding
from langfuse_worker.doctor.runner import run_checks
from langfuse_worker.doctor.store import try_store

_TIMEOUT_S = 60.0


def check_destinations(subject: Subject) -> Iterator[Finding]:
    """Try each; one that hangs keeps no other from being tried."""
    configs = {project.destination_name: project.destination for project in subject.catalog.projects}
    names = {name: f"destination {name}" for name in configs}
    yield from run_checks(
        [Check(names[n], partial(try_store, names[n], configs[n]), timeout_s=_TIMEOUT_S) for n in configs]
    )
