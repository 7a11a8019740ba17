"""`langfuse-worker start` and `code-server`: processes that are started and stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from langfuse_worker.console import err
from langfuse_worker.dagster_home import dagster_home, home_errors
from langfuse_worker.role import LOCATIONS
from langfuse_worker.settings import Settings

# What Dagster's daemon has no other settings for; the image sets the same.
DAEMON_VARIABLES = {
    # So many planned events are written at once, see `langfuse_worker.dagster_storage`.
    "DAGSTER_EVENT_BATCH_SIZE": "200",
    # After so many runs it asks whether somebody has cancelled their backfill, which costs 2 s where that has
    # 350 000 table partitions.
    "DAGSTER_ASSET_BACKFILL_RUN_CHUNK_SIZE": "5",
    # A backfill waits for a code location that is restarted or cannot load its catalog, instead of failing.
    "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1",
}
_POLL_S = 0.2
_STOP_S = 60  # beyond the consumers' own deadline
_BIN = Path(sys.executable).parent


def run_parts(settings: Settings, host: str, port: int) -> int:
    """Run Dagster, and the consumers if the role has them, until a signal or until one of them ends.

    Args:
        settings: the deployment's settings.
        host: address of the Dagster UI.
        port: its port.

    Returns:
        the exit code: 0 after a signal, 1 when a part ended by itself.

    Raises:
        SettingsError: LANGFUSE_HOME or DAGSTER_HOME cannot be used.
    """
    commands = [[str(_BIN / "dagster"), "dev", "-w", str(_workspace(settings))]]
    commands[0] += ["--host", host, "--port", str(port)]
    commands[0] += ["--log-format", "colored" if sys.stderr.isatty() else "json"]
    if settings.worker_role.runs_ingestion:
        commands.append([str(_BIN / "langfuse-worker"), "consume"])
    err.print(f"Dagster: http://{host}:{port}", markup=False)
    # How the code location asks the webserver to be loaded again.
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    environment = {**DAEMON_VARIABLES, **os.environ, "DAGSTER_HOME": str(dagster_home(settings))}
    # Dagster advises `dg dev` instead of `dagster dev`, which nobody here has typed.
    superseded = "ignore:Function `dev_command` is superseded"
    environment["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), superseded]))
    environment["DAGSTER_WEBSERVER_URL"] = f"http://{address}:{port}"
    return _run(settings, commands, environment)


def run_code_server(settings: Settings, arguments: Sequence[str]) -> int:
    """Run `dagster code-server start` until a signal, which also reaches its runs, or until it ends.

    Args:
        settings: the deployment's settings.
        arguments: those of Dagster's command.

    Returns:
        the exit code: 0 after a signal, 1 when it ended by itself.
    """
    return _run(settings, [[str(_BIN / "dagster"), "code-server", "start", *arguments]], os.environ)


def _run(settings: Settings, commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> int:
    # A script's `&` has SIGINT ignored, and whoever inherits that could not be stopped.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # Sessions of their own, so that Ctrl-C reaches them from here alone.
    parts = [subprocess.Popen(command, start_new_session=True, env=environment) for command in commands]
    signal.signal(signal.SIGINT, before)
    try:
        while all(part.poll() is None for part in parts):
            time.sleep(_POLL_S)
        ended = next(part for part in parts if part.poll() is not None)
        err.print(f"{' '.join(map(str, ended.args[1:3]))} ended with {ended.returncode}", markup=False)  # pyright: ignore
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(*parts, timeout_s=settings.shutdown_deadline_s + _STOP_S)


def _workspace(settings: Settings) -> Path:
    """A workspace of the role's code locations alone, named as in the repository's workspace.yaml."""
    entries = [
        {"python_module": {"module_name": location.module, "location_name": location.name}}
        for location in LOCATIONS
        if settings.worker_role.runs(location.family)
    ]
    path = settings.home.absolute() / f"workspace-{settings.worker_role.value}.yaml"
    with home_errors(settings):
        settings.home.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({"load_from": entries}))
    return path


def _stop(dagster: subprocess.Popen[bytes], *others: subprocess.Popen[bytes], timeout_s: float) -> None:
    # All of Dagster's processes, as Ctrl-C in a terminal does: it lets runs go on, and ends without them.
    _signal_group(dagster.pid, signal.SIGINT)
    for part in others:
        if part.poll() is None:
            part.send_signal(signal.SIGINT)
    deadline = time.monotonic() + timeout_s
    for part in (dagster, *others):
        with suppress(subprocess.TimeoutExpired):
            part.wait(max(0.1, deadline - time.monotonic()))
        while time.monotonic() < deadline and _signal_group(part.pid, 0):
            with suppress(ChildProcessError):
                os.waitpid(-part.pid, os.WNOHANG)  # orphans are a container's first process' to reap
            time.sleep(_POLL_S)
        _signal_group(part.pid, signal.SIGKILL)
        part.wait()


def _signal_group(leader: int, number: int) -> bool:
    """Signal a process and all that it has started; whether one of them was there."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True
