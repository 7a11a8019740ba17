"""`langfuse-worker dead-letters list | show | replay | purge`."""

import json
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from redis import Redis
from rich.markup import escape
from rich.table import Table

from langfuse_ingest.commands.preconditions import ingestion_settings, open_runtime
from langfuse_ingest.dead_letters import DeadLetter, dead_letters, purge, replay
from langfuse_ingest.queues import UnknownQueueError
from langfuse_worker.console import err, fail, out, print_whole

app = typer.Typer(help="Jobs that failed for good: list, inspect, put back, remove.", no_args_is_help=True)

Queues = Annotated[list[str] | None, typer.Option("--queue", help="Only this queue; repeatable.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of dead letters.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter of the chosen queues.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]


@app.command("list")
def list_letters(queue: Queues = None, as_json: Json = False) -> None:
    """List dead letters with their reasons, oldest first.

    Example: langfuse-worker dead-letters list --queue ingestion-queue
    """
    with open_runtime(ingestion_settings()) as parts:
        letters = _chosen(parts.redis, queue)
    if as_json:
        print(json.dumps([letter.as_json() for letter in letters], indent=2))
        return
    table = Table("Id", "Queue", "Failed at (UTC)", "Events", "Reason", box=None)
    for letter in letters:
        when = f"{letter.failed_at:%Y-%m-%d %H:%M:%S}" if letter.failed_at else "-"
        table.add_row(letter.id, letter.queue, when, str(letter.events), escape(letter.reason[:120]))
    if letters:
        print_whole(table)
    else:
        out.print("No dead letters.")


@app.command()
def show(letter_id: Annotated[str, typer.Argument(help="Id of a dead letter.")]) -> None:
    """Print one dead letter as JSON: its whole reason, its arguments, where its events are.

    Example: langfuse-worker dead-letters show 6d0f...
    """
    with open_runtime(ingestion_settings()) as parts:
        (letter,) = _chosen(parts.redis, ids=[letter_id])
        segment = letter.arguments.get("segment")
        uri = {"segment_uri": parts.event_log.uri(segment)} if segment else {}
    print(json.dumps({**letter.as_json(), **uri}, indent=2))


@app.command("replay")
def replay_letters(ids: Ids = None, queue: Queues = None, everything: All = False) -> None:
    """Put dead letters back into their queues, with all their attempts.

    Example: langfuse-worker dead-letters replay --all --queue ingestion-queue
    """
    _apply(replay, "put back", ids, queue, everything)


@app.command("purge")
def purge_letters(ids: Ids = None, queue: Queues = None, everything: All = False) -> None:
    """Remove dead letters. Their events stay in the event log.

    Example: langfuse-worker dead-letters purge 6d0f...
    """
    _apply(purge, "removed", ids, queue, everything)


def _apply(
    action: Callable[[Redis, DeadLetter], bool],
    done: str,
    ids: list[str] | None,
    queue: list[str] | None,
    everything: bool,
) -> None:
    if not ids and not everything:
        fail("name dead letters, or say --all", code=2)
    with open_runtime(ingestion_settings()) as parts:
        letters = _chosen(parts.redis, queue, None if everything else ids)
        count = sum(action(parts.redis, letter) for letter in letters)
    out.print(f"{count} of {len(letters)} dead letters {done}")
    sys.exit(0 if count == len(letters) else 1)


def _chosen(redis: Redis, queues: list[str] | None = None, ids: list[str] | None = None) -> list[DeadLetter]:
    """Dead letters of the queues, by default of all; with ids, these alone."""
    try:
        letters = list(dead_letters(redis, queues))
    except UnknownQueueError as error:
        fail(str(error), code=2)
    if ids is None:
        return letters
    chosen = [letter for letter in letters if letter.id in ids]
    if missing := sorted(set(ids) - {letter.id for letter in chosen}):
        err.print(f"no such dead letter: {', '.join(missing)}", markup=False)
        sys.exit(1)
    return chosen
