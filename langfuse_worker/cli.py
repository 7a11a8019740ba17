"""The `langfuse-worker` command; packages add theirs as entry points of `langfuse_worker.commands`."""

import signal
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from langfuse_worker.clickhouse import ClickHouseError
from langfuse_worker.console import fail, out
from langfuse_worker.dagster_home import DagsterStorageError
from langfuse_worker.role import decide_locations, describe
from langfuse_worker.settings import SettingsError, settings
from langfuse_worker.start import run_code_server, run_parts


class Commands(TyperGroup):
    """This module's commands and those of packages, which are loaded when asked for: few need Dagster."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all of them."""
        return sorted([*super().list_commands(ctx), *_entries()])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name."""
        entry = _entries().get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        loaded, alone = entry.load(), typer.Typer(rich_markup_mode=app.rich_markup_mode)
        if isinstance(loaded, typer.Typer):
            alone.add_typer(loaded, name=cmd_name)
        else:
            alone.command(cmd_name)(loaded)
        return typer.main.get_group(alone).get_command(ctx, cmd_name)


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="langfuse_worker.commands")}


app = typer.Typer(
    cls=Commands,
    name="langfuse-worker",
    help="Exports Langfuse's ClickHouse tables to blob storage, and ingests its events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        out.print(f"langfuse-export {version('langfuse-export')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exports Langfuse's ClickHouse tables to blob storage, and ingests its events."""


@app.command()
def start(
    host: Annotated[str, typer.Option(help="Address of the Dagster UI.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
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


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": ["--help"],
    }
)
def code_server(context: typer.Context) -> None:
    """Run `dagster code-server start` with the same options; when it is stopped, its runs clean up first.

    Exit code 0 after Ctrl-C or SIGTERM, 1 when it ended by itself, 2 when a setting is wrong.

    Example: langfuse-worker code-server -h 0.0.0.0 -p 4000 -m langfuse_export.definitions
    """
    sys.exit(run_code_server(settings(), context.args))


def main() -> None:
    """Run the command; a wrong setting is one line and exit code 2."""
    # What stops a container is to abort uploads and kill queries as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SettingsError as error:
        fail(str(error), code=2)
    except (ClickHouseError, DagsterStorageError) as error:
        fail(str(error), code=1)


if __name__ == "__main__":
    main()
