"""The `langfuse-worker` command itself; its commands are tested with what they are for."""

from importlib.metadata import entry_points, version

from typer.testing import CliRunner

from langfuse_worker.cli import app


def test_help_lists_the_commands_of_all_packages() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for name in ("start", *(entry.name for entry in entry_points(group="langfuse_worker.commands"))):
        assert f" {name} " in shown.stdout


def test_the_version_is_that_of_the_package() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"langfuse-export {version('langfuse-export')}\n")


def test_an_unknown_command_is_named() -> None:
    shown = CliRunner().invoke(app, ["exprot"])
    assert shown.exit_code == 2
    assert "No such command 'exprot'" in shown.stderr
