"""Whether exports ask for more threads than the server that they read has cores."""

import re
from collections.abc import Iterator

from langfuse_export.doctor.subject import Subject
from langfuse_worker.doctor import Finding, ok, warning
from langfuse_worker.doctor.clickhouse import ask, connected

THREADS = "clickhouse: threads"
_SETTING = "LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS"
# The server's own default, whatever profiles and queries say: 'auto(8)', in quotes on older releases.
_DEFAULT = "SELECT default FROM system.settings WHERE name = 'max_threads'"
_CORES = re.compile(r"auto\((\d+)\)")


def check_threads(subject: Subject) -> Iterator[Finding]:
    """Compare max_threads of exports with the server's cores; nothing if it does not say them."""
    ours = subject.settings.export_max_threads
    with connected(subject.connect) as source:
        cores = _CORES.search("".join(str(value) for (value,) in ask(source, _DEFAULT)))
    if cores is None:
        return
    if ours > int(cores[1]):
        text = f"exports use {ours} threads, and the server has {cores[1]} cores: more memory, not more speed"
        yield warning(THREADS, text, f"set {_SETTING}={cores[1]}")
    else:
        yield ok(THREADS, f"exports use {ours} of the {cores[1]} threads that the server has cores for")
