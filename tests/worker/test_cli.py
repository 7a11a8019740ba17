"""The `langfuse-worker` command itself; its commands are tested with what they are for."""

from collections.abc import Iterator
from importlib.metadata import entry_points, version
from typing import Any

from typer import Context
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from langfuse_worker.cli import app
from tests.command import langfuse_worker


def test_help_lists_the_commands_of_all_packages() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for name in ("start", *(entry.name for entry in entry_points(group="langfuse_worker.commands"))):
        assert f" {name} " in shown.stdout


def test_a_wrong_setting_ends_commands_in_one_line_and_not_their_help() -> None:
    ended = langfuse_worker("queues", LANGFUSE_WORKER_ROLE="nonsense")
    shown = langfuse_worker("queues", "--help", LANGFUSE_WORKER_ROLE="nonsense")

    assert ended.code == 2
    assert [line for line in ended.err.splitlines() if "LANGFUSE_WORKER_ROLE='nonsense'" in line] == [
        ended.err.strip()
    ]
    assert (shown.code, shown.err) == (0, "")


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"langfuse-export {version('langfuse-export')}\n")


def _commands(command: Any, *names: str) -> Iterator[tuple[str, str]]:
    """Each command below it, as it is typed, and its help."""
    if not isinstance(command, TyperGroup):
        yield " ".join(names), command.help or ""
        return
    for name in command.list_commands(Context(command)):
        yield from _commands(command.get_command(Context(command), name), *names, name)


def test_the_help_of_every_command_has_an_example_of_it() -> None:
    found = dict(_commands(get_command(app), "langfuse-worker"))
    assert "langfuse-worker export check" in found
    for name, text in found.items():
        assert name in text.partition("Example")[2], name


def test_an_unknown_command_is_named() -> None:
    shown = CliRunner().invoke(app, ["exprot"])
    assert shown.exit_code == 2
    assert "No such command 'exprot'" in shown.stderr
