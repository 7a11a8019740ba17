"""deploy/helm: what of it can be held against Dagster's own schemas and the product's settings.

The chart itself is in no package, so its templates are not rendered here. `make lint-deploy` holds
consumers.yaml against Kubernetes' schemas.
"""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster_aws.s3 import S3ComputeLogManager
from dagster_k8s import K8sRunLauncher

from langfuse_worker.role import LOCATIONS, WorkerRole
from langfuse_worker.settings import Settings, environment_names
from tests.deploy.test_instance import read
from tests.servers.postgres import PostgresServer

HELM = Path(__file__).parents[2] / "deploy" / "helm"
# Those that deploy/dagster.yaml has too and that the chart does not write itself.
STORAGE = ("run_storage", "event_log_storage", "schedule_storage")
# How the chart's templates/configmap-instance.yaml names Dagster's own, above what the values add.
CHART = """
{name}:
  module: dagster_postgres.{module}
  class: {dagsters}
  config:
    postgres_db:
      username: {username}
      password:
        env: DAGSTER_PG_PASSWORD
      hostname: {hostname}
      db_name: {db_name}
      port: {port}
      params: {{}}
      scheme: {scheme}
"""
SECTIONS = {
    "nux",
    "local_artifact_storage",
    "concurrency",
    "run_queue",
    "schedules",
    "backfills",
    "run_monitoring",
    "run_retries",
    "retention",
}


# What deploy/dagster.yaml, which is in the image, asks of its environment.
OF_THE_IMAGES_INSTANCE = set(
    re.findall(r"env: (DAGSTER_\w+)", (HELM.parent / "dagster.yaml").read_text("utf-8"))
)


@dg.asset
def nothing() -> None:
    """An asset."""


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """The chart's values."""
    return read("deploy/helm/values.yaml")


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """The objects of consumers.yaml by kind."""
    documents = yaml.safe_load_all((HELM / "consumers.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


def snake(name: str) -> str:
    """A key of the chart's values as Dagster's configuration has it."""
    return re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), name)


def test_runs_are_run_as_with_compose(values: dict[str, Any]) -> None:
    production = read("deploy/dagster.yaml")
    assert set(values["additionalInstanceConfig"]) == SECTIONS | set(STORAGE)
    for section in SECTIONS:
        assert values["additionalInstanceConfig"][section] == production[section], section
    assert values["pythonLogs"]["pythonLogLevel"] == production["python_logs"]["python_log_level"]


def test_the_chart_writes_none_of_these_sections_a_second_time(values: dict[str, Any]) -> None:
    daemon = values["dagsterDaemon"]
    assert not any(daemon[part]["enabled"] for part in ("runCoordinator", "runMonitoring", "runRetries"))
    assert not any(daemon[part]["useThreads"] for part in ("sensors", "schedules"))
    assert not values["retention"]["enabled"]
    assert "concurrency" not in values


def test_dagster_accepts_them_and_queues_runs(values: dict[str, Any], tmp_path: Path) -> None:
    sections = {name: values["additionalInstanceConfig"][name] for name in SECTIONS}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(sections))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 8


def test_dagster_accepts_the_configuration_of_the_launcher_and_of_compute_logs(
    values: dict[str, Any],
) -> None:
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    assert values["runLauncher"]["type"] == K8sRunLauncher.__name__
    config = {snake(key): value for key, value in launcher.items()}
    config["run_k8s_config"] = {snake(k): v for k, v in launcher["runK8sConfig"].items()}
    given = {"service_account_name": "dagster", "instance_config_map": "dagster-instance"}
    assert process_config(K8sRunLauncher.config_type(), {**given, **config}).errors in (None, [])

    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert values["computeLogManager"]["type"] == S3ComputeLogManager.__name__
    config = {snake(key): value for key, value in logs.items()}
    assert process_config(S3ComputeLogManager.config_type(), config).errors in (None, [])


def test_postgres_is_reached_as_with_compose_and_as_the_chart_is_told(values: dict[str, Any]) -> None:
    scheme = read("deploy/dagster.yaml")["storage"]["custom"]["config"]["postgres_db"]["scheme"]
    chart = values["postgresql"]
    assert chart["postgresqlScheme"] == scheme
    for name in STORAGE:
        assert values["additionalInstanceConfig"][name]["config"]["postgres_db"] == {
            "hostname": chart["postgresqlHost"],
            "port": chart["service"]["port"],
            "username": chart["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "db_name": chart["postgresqlDatabase"],
            "scheme": scheme,
        }


def test_the_storage_is_the_products_although_the_chart_names_dagsters(
    values: dict[str, Any], postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.create_database("helm")
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", postgres.password)
    address = {**values["additionalInstanceConfig"]["run_storage"]["config"]["postgres_db"]}
    address |= {
        "hostname": postgres.host,
        "port": postgres.port,
        "username": postgres.user,
        "db_name": "helm",
    }
    added = {
        name: {**values["additionalInstanceConfig"][name], "config": {"postgres_db": address}}
        for name in STORAGE
    }
    dagsters = ("PostgresRunStorage", "PostgresEventLogStorage", "PostgresScheduleStorage")
    modules = ("run_storage", "event_log", "schedule_storage")
    written = [
        CHART.format(name=name, module=module, dagsters=dagster, **address)
        for name, module, dagster in zip(STORAGE, modules, dagsters, strict=True)
    ]
    file = tmp_path / "dagster.yaml"

    for additions, parts in (("", dagsters), (yaml.safe_dump(added), [added[n]["class"] for n in STORAGE])):
        file.write_text("".join(written) + additions)
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            # As a run or a code server makes the instance again.
            with dg.DagsterInstance.from_ref(instance.get_ref()) as again:
                storage = (again.run_storage, again.event_log_storage, again.schedule_storage)
                assert [type(part).__name__ for part in storage] == list(parts)
            assert dg.materialize([nothing], instance=instance).success
    assert instance.get_runs_count() == 2


def test_each_role_is_a_code_location(values: dict[str, Any]) -> None:
    deployments = values["dagster-user-deployments"]["deployments"]
    served = {deployment["codeServerArgs"][1]: deployment for deployment in deployments}
    assert set(served) == {location.module for location in LOCATIONS}
    for location in LOCATIONS:
        env = {item["name"]: item.get("value") for item in served[location.module]["env"]}
        role = WorkerRole(env["LANGFUSE_WORKER_ROLE"])
        assert role.value == location.family.value
        unknown = set(env) - set(environment_names().values())
        assert unknown <= OF_THE_IMAGES_INSTANCE
        assert served[location.module]["includeConfigInLaunchedRuns"] == {"enabled": True}


def test_commands_by_hand_find_dagsters_state_and_the_catalog_the_web_server(values: dict[str, Any]) -> None:
    env = values["dagster-user-deployments"]["deployments"][0]["env"]
    given = {item["name"]: item.get("value") for item in env}
    chart = values["postgresql"]
    assert given.keys() >= OF_THE_IMAGES_INSTANCE
    assert given["DAGSTER_POSTGRES_HOST"] == chart["postgresqlHost"]
    assert given["DAGSTER_POSTGRES_PORT"] == str(chart["service"]["port"])
    assert (
        given["DAGSTER_COMPUTE_LOGS_BUCKET"]
        == (values["computeLogManager"]["config"]["s3ComputeLogManager"]["bucket"])
    )
    [secret] = [item["valueFrom"]["secretKeyRef"] for item in env if "valueFrom" in item]
    assert secret == {"name": values["global"]["postgresqlSecretName"], "key": "postgresql-password"}

    webserver = values["dagsterWebserver"]
    install = re.search(r"upgrade --install (\S+) dagster/dagster", (HELM / "values.yaml").read_text("utf-8"))
    assert install is not None
    service = f"{install[1]}-{webserver['nameOverride']}"
    assert given["DAGSTER_WEBSERVER_URL"] == f"http://{service}:{webserver['service']['port']}"


def test_whatever_keeps_or_shows_what_runs_print_may_reach_its_bucket(values: dict[str, Any]) -> None:
    parts = [values["dagsterDaemon"], values["dagsterWebserver"]]
    for part in [*parts, *values["dagster-user-deployments"]["deployments"]]:
        assert {"name": "langfuse-export-aws"} in part["envSecrets"]


def test_runs_are_as_confined_as_everything_else(values: dict[str, Any]) -> None:
    config = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    parts = [values["dagsterDaemon"], values["dagsterWebserver"]]
    for part in [*parts, *values["dagster-user-deployments"]["deployments"]]:
        assert part["podSecurityContext"] == config["podSpecConfig"]["securityContext"]
        assert part["securityContext"] == config["containerConfig"]["securityContext"]


def test_the_chart_is_that_of_the_pinned_dagster() -> None:
    assert f"--version {dg.__version__} " in (HELM / "values.yaml").read_text("utf-8")


def test_every_part_runs_the_same_image(values: dict[str, Any], manifests: dict[str, Any]) -> None:
    deployments = values["dagster-user-deployments"]["deployments"]
    images = [values["dagsterDaemon"]["image"], values["dagsterWebserver"]["image"]]
    images += [deployment["image"] for deployment in deployments]
    [container] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert {f"{image['repository']}:{image['tag']}" for image in images} == {container["image"]}


def test_consumers_and_their_code_location_share_their_settings(
    values: dict[str, Any], manifests: dict[str, Any]
) -> None:
    [container] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    ingest = values["dagster-user-deployments"]["deployments"][1]
    sources = [*ingest["envConfigMaps"], *ingest["envSecrets"]]
    assert all(next(iter(source.values())) in sources for source in container["envFrom"])
    assert ingest["envConfigMaps"] == [{"name": manifests["ConfigMap"]["metadata"]["name"]}]
    names = {*manifests["ConfigMap"]["data"], *(item["name"] for item in container["env"])}
    assert names - set(environment_names().values()) == set()


def test_consumers_are_probed_and_given_time_to_finish(manifests: dict[str, Any]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env = {item["name"]: item["value"] for item in container["env"]}
    assert pod["terminationGracePeriodSeconds"] > float(env["LANGFUSE_WORKER_SHUTDOWN_DEADLINE_S"])
    assert container["ports"] == [{"name": "health", "containerPort": Settings().health_port}]
    probes = {
        kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {kind: get["path"] for kind, get in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {get["port"] for get in probes.values()} == {"health"}


def test_the_disruption_budget_is_that_of_the_consumers(manifests: dict[str, Any]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
