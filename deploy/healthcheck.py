#!/usr/bin/env python3
"""Says whether the part that this container runs works: exit code 0 if it does, else 1.

What is asked depends on the container's command, so that one image has one health check. Commands that are
run once by hand count as healthy as long as they run.
"""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

_TIMEOUT_S = 10


def main(pid: int = 1) -> None:
    """Ask the part that the process runs; ends this process.

    Args:
        pid: the container's first process, or one that runs such a command.
    """
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    names = [Path(word).name for word in command]
    if "consume" in names:
        _http(int(os.environ.get("LANGFUSE_WORKER_HEALTH_PORT") or 3030), "/healthz")
    elif "code-server" in names:
        _grpc(int(_port(command)))
    elif "dagster-webserver" in names:
        _http(int(_port(command)), "/server_info")
    elif "dagster-daemon" in names:
        os.execvp("dagster-daemon", ["dagster-daemon", "liveness-check"])


def _port(command: list[str]) -> str:
    option = "-p" if "-p" in command else "--port"
    return command[command.index(option) + 1]


def _http(port: int, path: str) -> None:
    try:
        # Never through a proxy that the container's environment names.
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=_TIMEOUT_S) as answer:
            answer.read()
    except OSError as error:  # 503 as well as no connection
        sys.exit(f"{path} of port {port}: {error}")


def _grpc(port: int) -> None:
    # What `dagster api grpc-health-check` asks; that imports all of Dagster, for seconds, at each check.
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    request = health_pb2.HealthCheckRequest(service="DagsterApi")
    options = [("grpc.enable_http_proxy", 0)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            status = stub.Check(request, timeout=_TIMEOUT_S).status
    except grpc.RpcError as error:
        sys.exit(f"gRPC of port {port}: {error.details()}")
    if status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"gRPC of port {port}: not serving, but {status}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
