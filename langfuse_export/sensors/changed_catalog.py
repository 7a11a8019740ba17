"""Has Dagster load the code location again when the catalog has changed, so that nobody has to restart it.

A run loads the catalog itself: a changed destination or format counts from the next run on in any case. What
needs a reload are projects that come and go, and those that change their frequency or tables.
"""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import dagster as dg

from langfuse_export.catalog import Catalog
from langfuse_export.catalog.load import read_sources
from langfuse_export.notify.left_out import tell_left_out
from langfuse_export.notify.notifier import Notifier
from langfuse_worker.settings import Settings

INTERVAL_S = 60
RELOAD_TIMEOUT_S = 50  # a tick has a minute


def build_catalog_sensor(settings: Settings, loaded: Catalog) -> dg.SensorDefinition:
    """The sensor; its ticks also name the projects that are left out, which have no assets to say so.

    Args:
        settings: where the catalog and Dagster's webserver are.
        loaded: the catalog that this code location holds.
    """
    left_out = [f"{row.project_id} is left out: {row.error}" for row in loaded.rejections]

    @dg.sensor(
        name="export_catalog_sensor",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Compares exports.yaml, Langfuse's Postgres and the projects in ClickHouse with what is loaded, "
            "and reloads this code location when they differ."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier]) -> dg.SkipReason:
        if read_sources(settings).fingerprint == loaded.fingerprint:
            tell_left_out(context.instance, notifier, loaded.rejections, datetime.now(UTC))
            return dg.SkipReason("\n".join(["the catalog has not changed", *left_out]))
        origin = context.code_location_origin
        reload_location(settings.dagster_url, origin.location_name if origin else "langfuse_export")
        return dg.SkipReason("the catalog has changed: this code location was loaded again")

    return sensor


def reload_location(url: str, name: str) -> None:
    """Have Dagster load a code location again, and wait until it has.

    Args:
        url: the webserver's address.
        name: the code location.

    Raises:
        dagster.Failure: the webserver does not answer, or the location does not load.
    """
    # Takes 0.4 s of CPU, which every run would spend for nothing.
    from dagster_graphql import (  # noqa: PLC0415
        DagsterGraphQLClient,
        DagsterGraphQLClientError,
        ReloadRepositoryLocationStatus,
    )

    parts = urlsplit(url)
    try:
        client = DagsterGraphQLClient(
            parts.netloc + parts.path, use_https=parts.scheme == "https", timeout=RELOAD_TIMEOUT_S
        )
        outcome = client.reload_repository_location(name)
    except DagsterGraphQLClientError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise dg.Failure(
            f"DAGSTER_WEBSERVER_URL={url}: the catalog has changed, but Dagster cannot be asked to reload "
            f"{name}: {reason}"
        ) from error
    if outcome.status is ReloadRepositoryLocationStatus.FAILURE:
        raise dg.Failure(f"{name} does not load: {outcome.failure_type}: {outcome.message}")
