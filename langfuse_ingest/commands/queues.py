"""`langfuse-worker queues`."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from langfuse_ingest.commands.preconditions import open_runtime
from langfuse_ingest.queue_state import queue_states
from langfuse_ingest.queues import decide_queues
from langfuse_ingest.queues import queues as all_queues
from langfuse_worker.console import out, print_whole
from langfuse_worker.settings import settings


def queues(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")] = False,
) -> None:
    """Show the queues: what runs here and why not, how many jobs wait, the age of the oldest, failures.

    A role of export opens no Redis connection, so depths are left out there.

    Example: langfuse-worker queues --json
    """
    config = settings()
    decisions = {decision.name: decision for decision in decide_queues(config.worker_role)}
    rows: list[dict[str, Any]] = [
        {
            "queue": spec.name,
            "runs_here": decisions[spec.name].registered,
            "reason": decisions[spec.name].reason,
            "consumers": spec.consumers,
            "shards": spec.shards,
        }
        for spec in all_queues()
    ]
    if config.worker_role.runs_ingestion:
        with open_runtime(config) as parts:
            for row, state in zip(rows, queue_states(parts.redis, all_queues()), strict=True):
                row.update(asdict(state))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("Queue", "Here", "Waiting", "Active", "Retrying", "Failed", "Oldest", box=None)
    table.pad_edge = False
    for row in rows:
        here = "[green]yes[/green]" if row["runs_here"] else "no"
        failed = row.get("failed", "-")
        table.add_row(
            row["queue"],
            here,
            *(str(row.get(name, "-")) for name in ("waiting", "active", "scheduled")),
            f"[red]{failed}[/red]" if failed not in (0, "-") else str(failed),
            f"{row['oldest_age_s']:,.0f} s" if row.get("waiting") else "-",
        )
    print_whole(table)
    for row in rows:
        if not row["runs_here"]:
            out.print(f"{row['queue']} does not run here: {row['reason']}", markup=False, soft_wrap=True)
