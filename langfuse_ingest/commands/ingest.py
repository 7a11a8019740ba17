"""`langfuse-worker ingest FILE`."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from langfuse_ingest.commands.preconditions import ingestion_settings, open_runtime
from langfuse_ingest.event_log import Origin
from langfuse_ingest.producer import Producer, Receipt, Rejection
from langfuse_ingest.surrogates import read_json
from langfuse_worker.blobstore import StoreError
from langfuse_worker.console import err, fail, out

_SHOWN_REJECTIONS = 5
_MOST_BYTES = 32 << 20  # of lines that are held, and at most one line more
_ORIGIN = Origin(sdk_name="langfuse-worker-ingest")


@dataclass
class Summary:
    """What became of a file."""

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[Rejection] = field(default_factory=list)

    def add(self, receipt: Receipt) -> None:
        """Count the next batch of the file."""
        before = self.accepted + self.rejected.total()
        for rejection in receipt.rejected[: _SHOWN_REJECTIONS - len(self.examples)]:
            self.examples.append(replace(rejection, index=rejection.index + before))
        self.accepted += len(receipt.accepted)
        self.rejected += receipt.reasons

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        examples = [vars(rejection) for rejection in self.examples]
        return {"accepted": self.accepted, "rejected": dict(self.rejected), "examples": examples}


def ingest(
    file: Annotated[
        Path, typer.Argument(help='JSON lines, a batch {"batch": [...]}, or OTLP/JSON; - is stdin.')
    ],
    project: Annotated[str, typer.Option(help="Project that the events belong to.")],
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Events in one batch.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")] = False,
) -> None:
    """Put events of a file into the queue: one JSON event a line, a Langfuse batch, or an OTLP/JSON export.

    Exit code 0 when every event was accepted, 1 when some were rejected, 2 when the file cannot be read.

    Example: langfuse-worker ingest events.jsonl --project support-bot
    """
    config = ingestion_settings()
    if not project:
        fail("--project is empty", code=2)
    is_stdin = str(file) == "-"
    if not is_stdin and not file.is_file():
        fail(f"{file}: {'is no file' if file.exists() else 'no such file'}", code=2)
    summary = Summary()
    with open_runtime(config) as parts, _progress() as progress:
        task = progress.add_task("Ingesting", total=None if is_stdin else file.stat().st_size)
        try:
            with sys.stdin.buffer if is_stdin else file.open("rb") as stream:
                for documents, size in _documents(stream, batch_size):
                    _accept(parts.producer, project, documents, batch_size, summary)
                    progress.advance(task, size)
        except (StoreError, OSError) as error:
            fail(f"after {summary.accepted} accepted events: {error}", code=1)
    _print(summary, as_json)
    sys.exit(0 if not summary.rejected else 1)


def _accept(
    producer: Producer, project: str, documents: list[Any], batch_size: int, summary: Summary
) -> None:
    """Accept events, batches and OTLP exports, whichever the documents are."""
    events: list[object] = []
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("batch"), list):
            events += document["batch"]
        elif isinstance(document, dict) and "resourceSpans" in document:
            summary.add(producer.accept_spans(project, document, _ORIGIN))
        else:
            events.append(document)
    for start in range(0, len(events), batch_size):  # one document may hold any number
        summary.add(producer.accept(project, events[start : start + batch_size], _ORIGIN))


def _documents(stream: BinaryIO, batch_size: int) -> Iterator[tuple[list[Any], int]]:
    """Documents in batches, with the bytes they took; a line that is no JSON is rejected later."""
    first = stream.readline()
    lines = chain([first], stream)
    if _parse(first) is None:
        whole = first + stream.read()
        document = _parse(whole)
        if document is not None:  # one document over many lines
            yield document if isinstance(document, list) else [document], len(whole)
            return
        lines = whole.splitlines(keepends=True)
    batch: list[Any] = []
    size = 0
    for line in lines:
        size += len(line)
        if line.strip():
            document = _parse(line)
            batch += document if isinstance(document, list) else [document]
        if len(batch) >= batch_size or size >= _MOST_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def _parse(text: bytes) -> Any:
    try:
        return read_json(text)
    except orjson.JSONDecodeError:
        return None  # rejected as not_an_event, like every other value that is none


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def _print(summary: Summary, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.as_json(), indent=2))
        return
    out.print(f"{summary.accepted:,} accepted, {summary.rejected.total():,} rejected")
    if summary.rejected:
        table = Table("Rejected", "Reason", box=None)
        for reason, count in summary.rejected.most_common():
            table.add_row(f"{count:,}", reason)
        out.print(table)
        for rejection in summary.examples:
            out.print(f"event {rejection.index} ({rejection.id}): {rejection.message}", markup=False)
