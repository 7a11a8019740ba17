"""`langfuse-worker delete traces | scores | project`."""

from typing import Annotated, Any

import typer

from langfuse_ingest.commands.preconditions import ingestion_settings, open_runtime
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queues import queue
from langfuse_worker.console import fail, out

app = typer.Typer(help="Queue the deletion of traces, scores or a project.", no_args_is_help=True)


def _not_empty(value: str) -> str:
    if not value:
        fail("the project id is empty", code=2)
    return value


Project = Annotated[str, typer.Option(help="Project id.", callback=_not_empty)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def traces(
    ids: Annotated[list[str], typer.Argument(help="Trace ids.")], project: Project, yes: Yes = False
) -> None:
    """Delete traces with their observations, scores and events.

    Example: langfuse-worker delete traces 4f1c... 9a2b... --project support-bot
    """
    _confirm(f"Delete {len(ids)} traces of {project} with everything in them?", yes)
    _enqueue("trace-delete", project=project, trace_ids=ids)


@app.command()
def scores(
    ids: Annotated[list[str], typer.Argument(help="Score ids.")], project: Project, yes: Yes = False
) -> None:
    """Delete scores.

    Example: langfuse-worker delete scores 4f1c... --project support-bot --yes
    """
    _confirm(f"Delete {len(ids)} scores of {project}?", yes)
    _enqueue("score-delete", project=project, score_ids=ids)


@app.command("project")
def delete_project(
    project: Annotated[str, typer.Argument(help="Project id.", callback=_not_empty)], yes: Yes = False
) -> None:
    """Delete every row and the whole event log of a project. Exported objects stay.

    Example: langfuse-worker delete project old-bot
    """
    _confirm(f"Delete everything of {project}, its event log included?", yes)
    _enqueue("project-delete", project=project)


def _confirm(question: str, yes: bool) -> None:
    if not yes and not typer.confirm(question, err=True):
        fail("nothing is deleted", code=1)


def _enqueue(name: str, **arguments: Any) -> None:
    with open_runtime(ingestion_settings()) as parts:
        enqueue(parts.redis, queue(name), [NewJob(arguments)])
    out.print(f"queued in {name}", markup=False)
