"""A bucket that refuses for a while: S3 and ClickHouse over the wire, and a clock of the tests' own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from langfuse_export.checks import HEALTH_CHECK
from langfuse_export.health.state import State
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import FAILURE_TAG, STATE_TAG, asset_key
from langfuse_export.notify.notifier import Notifier, tell_people
from langfuse_export.tables import TABLES
from langfuse_worker.clickhouse import connect
from tests.export.dagster.deployment import Deployment
from tests.export.dagster.simulation import Simulation
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.notifications import MailServer
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

BUCKET = "refusing"
START = datetime(2026, 6, 10, tzinfo=UTC)
REFUSED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class Refusing:
    """Project p1, hourly, to a bucket behind a proxy that can refuse."""

    simulation: Simulation
    proxy: S3Proxy
    mails: MailServer
    clickhouse: ClickHouseServer
    notifier: Notifier

    def refuse(self) -> None:
        """From now on the bucket answers AccessDenied."""
        self.proxy.faults = [S3Fault(method, "", 403, REFUSED) for method in ("GET", "PUT", "POST", "HEAD")]

    def until(self, end: datetime) -> None:
        """Let the time go on, and people be told."""
        while self.simulation.now <= end:
            self.simulation.until(self.simulation.now)
            deployment = self.simulation.deployment
            tell_people(
                HealthStore(deployment.instance),
                self.notifier,
                {project.project_id: project for project in deployment.projects},
                deployment.options.health,
                self.simulation.now,
            )

    @property
    def subjects(self) -> list[str]:
        """Of the mails that have come."""
        return [str(mail["Subject"]) for mail in self.mails.mails]

    @property
    def state(self) -> State:
        """Of the project."""
        return self.simulation.health.state if self.simulation.health else State.HEALTHY


@pytest.fixture
def refusing(
    clickhouse: ClickHouseServer,
    s3: S3Server,
    s3_proxy: S3Proxy,
    mail_server: MailServer,
    instance: dg.DagsterInstance,
    tmp_path: Path,
) -> Iterator[Refusing]:
    """Its first window has been exported."""
    s3.create_bucket(BUCKET)
    settings = clickhouse.settings(
        LANGFUSE_HOME=str(tmp_path / "home"),
        LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S="0.01",
        SMTP_CONNECTION_URL=mail_server.url,
        EMAIL_FROM_ADDRESS="langfuse@example.com",
        LANGFUSE_BLOB_STORAGE_FAILURE_NOTIFICATION_EMAIL_TO="ops@example.com",
    )
    source = connect(settings)
    deployment = Deployment(settings, None, instance, source)  # type: ignore[arg-type]
    destination = s3.store_config(BUCKET, "", s3_proxy.url)
    deployment.projects = [
        deployment.project(tables=(TABLES["traces"],), start=START, destination=destination)
    ]
    simulation = Simulation(deployment, START + timedelta(hours=1, minutes=20))
    refusing = Refusing(simulation, s3_proxy, mail_server, clickhouse, Notifier.from_settings(settings))
    refusing.until(simulation.now)
    yield refusing
    source.close()


@pytest.mark.defect("D15")
def test_a_bucket_that_refuses_stops_its_project_until_the_configuration_changes(refusing: Refusing) -> None:
    """Defect D15 of Langfuse: the first refusal ends the export until a person comes."""
    simulation, deployment = refusing.simulation, refusing.simulation.deployment
    refusing.refuse()
    refusing.until(START + timedelta(hours=2, minutes=20))
    assert refusing.state is State.BACKING_OFF
    assert refusing.subjects == []

    refusing.until(START + timedelta(hours=2, minutes=40))
    assert refusing.state is State.STOPPED
    assert refusing.subjects == ["Langfuse export of p1 has stopped"]
    [record, *_] = deployment.instance.get_run_records(limit=1)
    assert record.dagster_run.tags[FAILURE_TAG] == "destination_access"
    assert record.dagster_run.tags[STATE_TAG] == "stopped"
    check = dg.AssetCheckKey(asset_key(deployment.first, TABLES["traces"]), HEALTH_CHECK)
    [execution] = deployment.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    assert execution.status.value == "FAILED"

    seen, attempts = len(refusing.clickhouse.requests), len(simulation.attempts)
    refusing.until(START + timedelta(hours=20))
    assert len(refusing.clickhouse.requests) == seen
    assert len(simulation.attempts) == attempts

    refusing.proxy.faults = []
    destination = replace(deployment.first.destination, secret_access_key="a new secret")
    deployment.projects = [replace(deployment.first, destination=destination)]
    del deployment.defs
    refusing.until(START + timedelta(hours=20, minutes=30))

    every = deployment.first.frequency.windows(START, START + timedelta(hours=20))
    assert deployment.materialized() == {deployment.first.frequency.key(window) for window in every}
    assert refusing.subjects == ["Langfuse export of p1 has stopped", "Langfuse export of p1 works again"]
    assert refusing.state is State.HEALTHY


@pytest.mark.defect("D15")
def test_a_moment_of_refusal_is_forgotten_and_nobody_is_told(refusing: Refusing) -> None:
    refusing.refuse()
    refusing.until(START + timedelta(hours=2, minutes=20))
    assert refusing.state is State.BACKING_OFF

    refusing.proxy.faults = []
    refusing.until(START + timedelta(hours=2, minutes=40))

    assert refusing.state is State.HEALTHY
    assert refusing.simulation.deployment.materialized() == {"2026-06-10T00", "2026-06-10T01"}
    assert refusing.subjects == []
