"""deploy/compose.yaml and what it mounts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_worker.role import LOCATIONS
from langfuse_worker.settings import Settings, environment_names
from tests.deploy.compose import ENVIRONMENT, ROOT, load, run_config

ONCE = {"buckets", "tables"}
# Its image has nothing to run a check with.
UNCHECKED = {"otel-collector"}
# Read by Dagster, by the AWS SDKs, and by deploy/exports.yaml.
FOREIGN = re.compile(r"DAGSTER_(POSTGRES|COMPUTE_LOGS)_\w+|AWS_\w+|EXPORT_BUCKET")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, resolved."""
    return load()["services"]


def ours(services: dict[str, Any]) -> dict[str, Any]:
    """Those that run the product's image."""
    return {name: service for name, service in services.items() if "build" in service}


def set_environment(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the service's environment."""
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)


def test_one_service_runs_each_part(services: dict[str, Any]) -> None:
    commands = {name: " ".join(service["command"]) for name, service in ours(services).items()}
    assert commands == {
        "export": "langfuse-worker code-server -h 0.0.0.0 -p 4000 -m langfuse_export.definitions",
        "ingest": "langfuse-worker code-server -h 0.0.0.0 -p 4001 -m langfuse_ingest.definitions",
        "consumers": "langfuse-worker consume",
        "webserver": "dagster-webserver -h 0.0.0.0 -p 3000 -w workspace.yaml",
        "daemon": "dagster-daemon run -w workspace.yaml",
    }
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert [command for command in commands.values() if f"#   {command}" not in dockerfile] == []


def test_the_workspace_names_the_code_servers(services: dict[str, Any]) -> None:
    servers = [
        entry["grpc_server"]
        for entry in yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text("utf-8"))["load_from"]
    ]
    assert [server["location_name"] for server in servers] == [location.name for location in LOCATIONS]
    for server in servers:
        command = services[server["host"]]["command"]
        assert command[command.index("-p") + 1] == str(server["port"])
        assert command[-1] == f"{server['location_name']}.definitions"


def test_every_variable_of_a_role_is_known(services: dict[str, Any]) -> None:
    known = set(environment_names().values())
    for name, service in ours(services).items():
        unknown = {v for v in service["environment"] if v not in known and not FOREIGN.fullmatch(v)}
        assert unknown == set(), name


@pytest.mark.parametrize(
    ("name", "role"), [("export", "export"), ("consumers", "ingestion"), ("ingest", "ingestion")]
)
def test_a_role_has_servers_and_no_embedded_engine(
    name: str, role: str, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(services[name], monkeypatch)
    settings = Settings()
    assert settings.worker_role.value == role
    assert not settings.embedded
    assert settings.clickhouse_user == role
    assert settings.embedded_redis is (role == "export")


def test_the_exports_go_to_a_bucket_that_is_made(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(services["export"], monkeypatch)
    [mount] = services["export"]["volumes"]
    [destination] = read_yaml(Path(mount["source"])).destinations.values()
    made = {argument.removeprefix("local/") for argument in services["buckets"]["command"][2:]}
    assert destination.url.removeprefix("s3://").rstrip("/") in made
    consumers = services["consumers"]["environment"]
    assert {consumers["LANGFUSE_S3_EVENT_UPLOAD_BUCKET"], consumers["DAGSTER_COMPUTE_LOGS_BUCKET"]} < made


def test_what_runs_for_long_is_checked_bounded_and_restarted(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        if name not in ONCE:
            assert service["restart"] == "unless-stopped", name
            assert ("healthcheck" in service) is (name not in UNCHECKED), name


def test_nothing_starts_before_what_it_needs(services: dict[str, Any]) -> None:
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == ("service_started" if needed in UNCHECKED else expected)
    # The collector, so that it is stopped after those who send it their last metrics.
    stores = {"tables", "postgres", "buckets", "otel-collector"}
    assert set(services["consumers"]["depends_on"]) == {*stores, "redis"}
    assert set(services["export"]["depends_on"]) == stores


def test_no_service_asks_for_more_cores_than_a_small_machine_has(services: dict[str, Any]) -> None:
    """Docker refuses to create a container whose limit is above the machine's number of CPUs."""
    for name, service in services.items():
        assert float(service["deploy"]["resources"]["limits"].get("cpus", 0)) <= 1, name


def test_consumers_have_longer_to_stop_than_their_own_deadline(services: dict[str, Any]) -> None:
    match = re.fullmatch(r"(\d+)s", services["consumers"]["stop_grace_period"])
    assert match is not None
    assert int(match[1]) > Settings().shutdown_deadline_s


def test_redis_keeps_jobs(services: dict[str, Any]) -> None:
    command = " ".join(services["redis"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_what_is_mounted_exists_and_is_read_only(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    binds = [mount for mount in mounts if mount["type"] == "bind"]
    assert binds
    for bind in binds:
        assert Path(bind["source"]).exists(), bind["source"]
        assert bind["read_only"]


def test_web_pages_listen_on_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_every_secret_is_asked_for_and_marked_as_a_development_default(tmp_path: Path) -> None:
    lines = ENVIRONMENT.read_text("utf-8").splitlines()
    secrets = [line.partition("=")[0] for line in lines if re.match(r"\w+(PASSWORD|AUTH)=", line)]
    assert len(secrets) == 8
    assert [line for line in lines if line.split("=")[0] in secrets and "=changeme-" not in line] == []
    for secret in secrets:
        without = tmp_path / ".env"
        without.write_text("\n".join(line for line in lines if not line.startswith(f"{secret}=")))
        refused = run_config(without)
        assert refused.returncode != 0
        assert f"{secret} is missing a value: set it in deploy/.env" in refused.stderr
