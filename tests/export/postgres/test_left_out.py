"""A project whose row in Langfuse's Postgres cannot be exported: everybody who looks is told why."""

import json
from pathlib import Path

import dagster as dg
import pytest

from langfuse_export.catalog import CatalogError
from langfuse_export.doctor.postgres import check_rows
from langfuse_export.doctor.subject import Subject
from langfuse_export.notify.channels import Webhook
from langfuse_export.notify.notifier import Notifier
from langfuse_worker.doctor import Status
from langfuse_worker.settings import Settings
from tests.command import langfuse_worker
from tests.export.location import load_location
from tests.export.postgres.deployment import Deployment
from tests.servers.notifications import WebhookReceiver

WHY = "bad is left out: export_frequency 'monthly' must be one of"


@pytest.fixture
def with_a_bad_row(deployment: Deployment) -> Deployment:
    """Project p1, and one whose row is nonsense."""
    deployment.add()
    deployment.add("bad", export_frequency="monthly")
    return deployment


def test_the_doctor_names_it(with_a_bad_row: Deployment) -> None:
    [found] = check_rows(Subject(Settings()))
    assert (found.status, found.result.startswith(WHY)) == (Status.PROBLEM, True)
    assert "ENCRYPTION_KEY" in found.remedy

    with_a_bad_row.postgres.change("bad", export_frequency="daily")
    [found] = check_rows(Subject(Settings()))
    assert found.status is Status.OK


def test_the_ticks_of_the_sensor_name_it_while_it_has_no_assets(
    with_a_bad_row: Deployment, webhook: WebhookReceiver
) -> None:
    repository = load_location().get_repository_def()
    sensor = repository.get_sensor_def("export_catalog_sensor")
    notifier = Notifier((Webhook(webhook.url, None),))
    with dg.build_sensor_context(
        instance=with_a_bad_row.instance, repository_def=repository, resources={"notifier": notifier}
    ) as context:
        said = sensor.evaluate_tick(context).skip_message
        assert said is not None
        assert said.splitlines()[0] == "the catalog has not changed"
        assert WHY in said
        sensor.evaluate_tick(context)
    [(_, body)] = webhook.requests  # of two ticks
    [notice] = json.loads(body)["notices"]
    assert (notice["kind"], notice["projectId"]) == ("left_out", "bad")
    assert f"bad is left out: {notice['error']}" in said


@pytest.mark.usefixtures("with_a_bad_row")
def test_commands_name_it(deployment: Deployment, tmp_path: Path) -> None:
    status = langfuse_worker("export", "status", "--json", home=tmp_path / "home")
    assert status.code == 0
    assert {row["project"] for row in status.json} == {"p1"}
    assert WHY in status.err

    with pytest.raises(CatalogError, match=r"project 'bad' is left out: export_frequency 'monthly'"):
        Subject(Settings()).catalog.project("bad")
