"""Streams that end badly: nothing is committed, on any ClickHouse version and for any format."""

from dataclasses import replace

import pytest

from langfuse_export.errors import WindowError, is_transient, reason_of
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.tables import TABLES
from tests.export.http.exporting import ENCODINGS, HOUR, Deployment
from tests.rows import PROJECT, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.s3 import S3Server

BUCKET = "exports"
ROWS = 3000
FAULTS = {
    "connection cut": Fault("cut", match="FROM traces", after_bytes=20_000),
    "cut before the first byte": Fault("cut", match="FROM traces"),
    "body ends early": Fault("truncate", match="FROM traces", after_bytes=20_000),
    "exception framed by its tag": Fault("exception", match="FROM traces", after_bytes=20_000),
    "exception of an old version": Fault("exception", match="FROM traces", after_bytes=20_000, tagged=False),
    "exception after the last row": Fault("exception", match="FROM traces", after_bytes=1 << 40),
    "old exception after the last row": Fault(
        "exception", match="FROM traces", after_bytes=1 << 40, tagged=False
    ),
}


@pytest.fixture
def on_s3(deployment: Deployment, s3: S3Server) -> Deployment:
    """The deployment with a bucket of its own as the destination, and rows in the window."""
    s3.create_bucket(BUCKET)
    rows = [trace(f"t{n}", input=f"{n} {'x' * 40}", output=str(hash(f"{n}"))) for n in range(ROWS)]
    deployment.insert("traces", *rows)
    destination = replace(s3.store_config(BUCKET), part_bytes=5 << 20)
    return deployment.with_(destination=destination, tables=[TABLES["traces"]])


@pytest.mark.defect("D10")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
def test_a_stream_that_ends_badly_leaves_no_object_and_no_open_upload(
    on_s3: Deployment, s3: S3Server, encoding: Encoding, fault: Fault
) -> None:
    on_s3.encoding = encoding
    # The query that counts rows reads the same table; only the stream has the columns.
    on_s3.server.break_next(replace(fault, match="t.input"))

    with pytest.raises(WindowError) as failure:
        on_s3.export()

    assert is_transient(failure.value)
    assert s3.keys(BUCKET) == []
    assert s3.open_uploads(BUCKET) == {}
    on_s3.export()
    assert len(on_s3.ids("traces")) == ROWS


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_stream_that_ends_badly_leaves_no_file(deployment: Deployment, fault: Fault) -> None:
    deployment.insert("traces", *[trace(f"t{n}", input=str(hash(n)) * 20) for n in range(ROWS)])
    deployment.server.break_next(replace(fault, match="t.input"))
    traces = deployment.with_(tables=[TABLES["traces"]])

    with pytest.raises(WindowError):
        traces.export()

    assert deployment.files() == []


def test_a_broken_stream_does_not_touch_the_object_of_an_earlier_export(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t1"))
    deployment.export()
    deployment.insert("traces", trace("t2"))
    deployment.server.break_next(Fault("cut", match="t.input", times=-1))

    with pytest.raises(WindowError):
        deployment.export()

    assert deployment.ids("traces") == ["t1"]
    assert deployment.manifest().files[1].row_count == 1


def test_one_broken_table_keeps_the_manifest_away_and_the_others_are_kept(deployment: Deployment) -> None:
    deployment.server.break_next(Fault("cut", match="t.string_value"))

    with pytest.raises(WindowError) as failure:
        deployment.export()

    assert set(failure.value.failures) == {"scores"}
    assert set(failure.value.exported) == {"traces", "observations", "events"}
    assert f"{PROJECT}/manifests/2026-06-01T13-00-00.json" not in deployment.files()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("exception", "t.input", code=241, after_bytes=0), "too_heavy"),
        (Fault("refuse", "t.input", code=202), "clickhouse_overloaded"),
        (Fault("refuse", "t.input", code=60, status=404), "clickhouse_refused"),
        (Fault("cut", "t.input"), "clickhouse_unavailable"),
        (Fault("truncate", "t.input"), "verification"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reason_of_a_failure_is_one_of_a_fixed_set(
    deployment: Deployment, fault: Fault, reason: str
) -> None:
    deployment.insert("traces", trace("t1"))
    deployment.server.break_next(fault)

    with pytest.raises(WindowError) as failure:
        deployment.export(tables=[TABLES["traces"]])

    assert reason_of(failure.value) == reason
    assert is_transient(failure.value) == (reason not in ("clickhouse_refused", "too_heavy"))


def test_a_worker_that_sees_fewer_rows_than_clickhouse_counts_commits_nothing(deployment: Deployment) -> None:
    # A JSONL body that ends exactly between two rows looks whole; only the count tells.
    deployment.encoding = Encoding(FileFormat.JSONL)
    deployment.insert("traces", *[trace(f"t{n}") for n in range(10)])
    deployment.export()
    lines = deployment.store.read(deployment.project.object_key(TABLES["traces"], HOUR)).splitlines(True)
    deployment.server.break_next(Fault("truncate", "t.input", after_bytes=len(b"".join(lines[:7]))))

    with pytest.raises(WindowError, match="7 rows, ClickHouse counts 10"):
        deployment.export(tables=[TABLES["traces"]])

    assert deployment.manifest().files[1].row_count == 10
    assert len(deployment.ids("traces")) == 10
