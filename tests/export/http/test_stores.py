"""Azure Blob Storage and Google Cloud Storage as destinations, over the wire."""

from dataclasses import replace

import pytest

from langfuse_export.errors import WindowError, is_transient
from langfuse_export.tables import TABLES
from langfuse_worker.blobstore import StoreAccessError
from langfuse_worker.store_faults import AccessFault
from tests.export.http.exporting import Deployment
from tests.rows import PROJECT, trace
from tests.servers.azure import AzureServer
from tests.servers.clickhouse_http import Fault
from tests.servers.google import GoogleServer

BUCKET = "exports"
ROWS = 3000
TRACES = f"langfuse/{PROJECT}/traces/2026-06-01T13-00-00.parquet"
MANIFEST = f"langfuse/{PROJECT}/manifests/2026-06-01T13-00-00.json"


@pytest.fixture(params=["azure", "google"])
def server(request: pytest.FixtureRequest) -> AzureServer | GoogleServer:
    """Each of the two, with an empty bucket."""
    server = request.getfixturevalue(request.param)
    create = server.create_container if request.param == "azure" else server.create_bucket
    create(BUCKET)
    return server


@pytest.fixture
def exporting(deployment: Deployment, server: AzureServer | GoogleServer) -> Deployment:
    """Exports of traces to it."""
    rows = [trace(f"t{n}", input=f"{n} {'x' * 40}", output=str(hash(f"{n}"))) for n in range(ROWS)]
    deployment.insert("traces", *rows)
    return deployment.with_(destination=server.store_config(BUCKET, "langfuse/"), tables=[TABLES["traces"]])


def test_a_window_becomes_a_verified_object_and_a_manifest(
    exporting: Deployment, server: AzureServer | GoogleServer
) -> None:
    exporting.export()
    exporting.export()  # again: the same objects

    assert server.keys(BUCKET) == [MANIFEST, TRACES]
    [file] = exporting.manifest().files
    assert (file.key, file.row_count) == (TRACES, ROWS)
    assert file.size_bytes == len(server.read(BUCKET, TRACES))
    assert len(exporting.ids("traces")) == ROWS


@pytest.mark.parametrize("after_bytes", [0, 20_000])
def test_a_stream_that_breaks_leaves_nothing_visible(
    exporting: Deployment, server: AzureServer | GoogleServer, after_bytes: int
) -> None:
    exporting.server.break_next(Fault("cut", match="t.input", after_bytes=after_bytes))

    with pytest.raises(WindowError) as failure:
        exporting.export()

    assert is_transient(failure.value)
    assert server.keys(BUCKET) == []
    exporting.export()
    assert server.keys(BUCKET) == [MANIFEST, TRACES]


def test_a_bucket_that_does_not_exist_is_permanent_and_named(exporting: Deployment) -> None:
    assert exporting.destination is not None
    url = exporting.destination.url.replace(BUCKET, "missing")
    missing = exporting.with_(destination=replace(exporting.destination, url=url))

    with pytest.raises(StoreAccessError, match="missing") as failure:
        missing.export()

    assert failure.value.fault is AccessFault.BUCKET
