"""The `langfuse-worker` command; packages add theirs as entry points of `langfuse_worker.commands`."""

import signal
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated

import typer

from langfuse_worker.clickhouse import ClickHouseError
from langfuse_worker.console import fail
from langfuse_worker.role import decide_locations, describe
from langfuse_worker.settings import SettingsError, settings
from langfuse_worker.start import run_parts

app = typer.Typer(
    name="langfuse-worker",
    help="Exports Langfuse's ClickHouse tables to blob storage, and ingests its events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Exports Langfuse's ClickHouse tables to blob storage, and ingests its events."""


@app.command()
def start(
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
) -> None:
    """Start what LANGFUSE_WORKER_ROLE asks for on this machine: Dagster with its UI, and the consumers.

    Exit code 0 after Ctrl-C or SIGTERM, 1 when a part ended by itself, 2 when a setting is wrong.

    Example: LANGFUSE_WORKER_ROLE=export langfuse-worker start --port 3001
    """
    role = settings().worker_role
    decisions = decide_locations(role)
    for entry in entry_points(group="langfuse_worker.decisions"):
        decisions += entry.load()(role)
    print(describe(role, decisions), file=sys.stderr, flush=True)
    sys.exit(run_parts(settings(), host, port))


def _add_commands() -> None:
    for entry in sorted(entry_points(group="langfuse_worker.commands"), key=lambda entry: entry.name):
        loaded: typer.Typer | Callable[..., None] = entry.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=entry.name)
        else:
            app.command(entry.name)(loaded)


def main() -> None:
    """Run the command; a wrong setting is one line and exit code 2."""
    # What stops a container is to abort uploads and kill queries as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings()
        _add_commands()
        app()
    except SettingsError as error:
        fail(str(error), code=2)
    except ClickHouseError as error:
        fail(str(error), code=1)


if __name__ == "__main__":
    main()
