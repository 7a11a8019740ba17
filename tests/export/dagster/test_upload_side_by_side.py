"""Windows of a day that have been read together and wait for the bucket alone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from langfuse_export.runs import SIDE_BY_SIDE
from langfuse_export.tables import EVENTS, TRACES
from tests.export.dagster.deployment import START, Deployment
from tests.rows import trace
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

BUCKET = "side-by-side"
HOURS = 8


def traces_of(hour: int) -> str:
    """In the paths of requests, the object of the traces of an hour of 1 June."""
    return f"/traces/2026-06-01T{hour + 1:02}-00-00"


def manifest_of(hour: int) -> str:
    """The manifest of an hour."""
    return f"/manifests/2026-06-01T{hour + 1:02}-00-00"


@pytest.fixture
def on_s3(deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy) -> Iterator[Deployment]:
    """Traces in each of eight hours, and events in none."""
    s3.create_bucket(BUCKET)
    destination = s3.store_config(BUCKET, endpoint=s3_proxy.url)
    deployment.projects = [deployment.project(tables=(TRACES, EVENTS), destination=destination)]
    deployment.insert("traces", *(trace(f"t{n}", START + timedelta(hours=n)) for n in range(HOURS)))
    yield deployment
    s3_proxy.faults = []


def test_uploads_wait_side_by_side_and_are_recorded_in_order(
    on_s3: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    fourth_came = threading.Event()
    s3_proxy.faults = [S3Fault("PUT", traces_of(0), until=fourth_came)]

    def release() -> None:
        s3_proxy.wait_for("PUT", traces_of(SIDE_BY_SIDE - 1))
        fourth_came.set()

    with ThreadPoolExecutor(1) as pool:
        released = pool.submit(release)
        result = on_s3.run("2026-06-01T00", "2026-06-01T07")
        released.result()

    assert result.success
    recorded = [
        event.materialization.partition
        for event in result.get_asset_materialization_events()
        if event.asset_key and event.asset_key.path[-1] == "traces"
    ]
    assert recorded == [f"2026-06-01T{n:02}" for n in range(HOURS)]
    assert len([key for key in s3.keys(BUCKET) if "/manifests/" in key]) == HOURS
    # No further window was begun before the first was whole.
    puts = [request.path for request in s3_proxy.requests if request.method == "PUT"]
    first_whole = next(at for at, path in enumerate(puts) if manifest_of(0) in path)
    assert not [path for path in puts[:first_whole] if traces_of(SIDE_BY_SIDE) in path]


def test_a_bucket_that_refuses_everything_is_not_asked_for_each_window(
    on_s3: Deployment, s3_proxy: S3Proxy
) -> None:
    denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    s3_proxy.faults = [S3Fault("PUT", "/traces/", status=403, body=denied)]

    result = on_s3.run("2026-06-01T00", "2026-06-01T07")

    assert not result.success
    puts = {r.path for r in s3_proxy.requests if r.method == "PUT" and "/traces/" in r.path}
    assert 1 <= len(puts) <= SIDE_BY_SIDE
    assert on_s3.materialized("traces") == set()


def test_windows_that_were_under_way_when_another_failed_are_recorded(
    on_s3: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    s3_proxy.faults = [S3Fault("PUT", traces_of(0), status=403, body=denied)]

    result = on_s3.run("2026-06-01T00", "2026-06-01T07")

    assert not result.success
    whole = {key.rsplit("/", 1)[1] for key in s3.keys(BUCKET) if "/manifests/" in key}
    recorded = on_s3.materialized("traces")
    assert whole == {
        f"{(START + timedelta(hours=n + 1)):%Y-%m-%dT%H-%M-%S}.json" for n in range(1, SIDE_BY_SIDE)
    }
    assert recorded == {f"2026-06-01T{n:02}" for n in range(1, SIDE_BY_SIDE)}
