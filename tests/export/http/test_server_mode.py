"""`transfer: server`: ClickHouse writes the objects itself, and readers cannot tell."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from langfuse_export import server_transfer
from langfuse_export.manifest import Manifest
from langfuse_export.project import ProjectExport
from langfuse_export.tables import ALL_TABLES, TABLES
from tests.export.http.exporting import HOUR, Deployment, read_rows
from tests.export.http.following import follow_of_the_docs
from tests.export.http.heavy import TOO_MUCH_AT_ONCE
from tests.export.http.server_mode import (
    BUCKET,
    COLLECTION,
    SECRET,
    s3_environment,
    to_bucket,
    writing_to_azure,
    writing_to_s3,
)
from tests.export.http.test_limits import default_limits
from tests.rows import NOON, PROJECT, event, insert, observation, score, trace
from tests.servers.azure import AzureServer
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import PASSWORDS, SERVER_MODE, SHIPPED_USERS, write_users
from tests.servers.s3 import S3Server

TRACES = TABLES["traces"]
# What differs between two exports of the same rows, whoever writes the objects.
_OWN = {"query_id", "duration_ms", "read_at"}


@pytest.fixture(scope="module")
def server(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """ClickHouse with the collection."""
    with writing_to_s3(tmp_path_factory.mktemp("server-mode"), s3.url) as server:
        yield server


@pytest.fixture
def archiving(server: ClickHouseServer, s3: S3Server) -> Iterator[Deployment]:
    """Exports in server mode of a project with rows in every table."""
    s3.create_bucket(BUCKET)
    server.empty()
    with to_bucket(server, s3) as deployment:
        deployment.insert("traces", trace("t1", input="ü" * 1000), trace("t2"), trace("t2", version=2))
        deployment.insert("observations", observation("o1"))
        deployment.insert("scores", score("s1"))
        deployment.insert("events_full", event("e1"))
        yield deployment


def comparable(manifest: Manifest) -> list[dict[str, object]]:
    """The entries of a manifest without what is its own."""
    return [file.model_dump(exclude=_OWN) for file in manifest.files]


def test_a_consumer_of_manifests_sees_every_revision_without_sums(
    archiving: Deployment, s3: S3Server
) -> None:
    seen: dict[str, str] = {}

    def poll() -> list[str]:
        loaded: list[str] = []
        folder = archiving.store.whole_key(f"{PROJECT}/")
        follow_of_the_docs()(s3.client, BUCKET, folder, seen, lambda key, _: loaded.append(key))
        return loaded

    archiving.export()
    assert len(poll()) == 4
    assert poll() == []

    archiving.insert("scores", score("late"))
    archiving.export(tables=[TABLES["scores"]])
    assert [key.split("/")[-2] for key in poll()] == ["scores"]


def test_objects_and_manifests_are_those_of_the_worker(archiving: Deployment, tmp_path: Path) -> None:
    archiving.export()
    written = {
        name: archiving.store.read(archiving.project.object_key(t, HOUR)) for name, t in TABLES.items()
    }
    rows = {name: archiving.rows(name) for name in TABLES}
    manifest = archiving.manifest()
    keys = archiving.store.keys("")

    by_worker = archiving.with_(named_collection=None)
    by_worker.export()

    assert archiving.store.keys("") == keys  # nothing else lies there, staged objects included
    assert rows == {name: by_worker.rows(name) for name in TABLES}
    for name, table in TABLES.items():
        theirs = by_worker.store.read(by_worker.project.object_key(table, HOUR))
        assert pq.read_schema(_file(tmp_path, written[name])) == pq.read_schema(_file(tmp_path, theirs)), name
    sums = [file.sha256 for file in manifest.files]
    assert sums == [None] * 4
    told = [entry | {"sha256": None} for entry in comparable(by_worker.manifest())]
    content_types = {file.content_type for file in manifest.files}
    assert content_types == {"binary/octet-stream"}  # which ClickHouse gives
    assert [
        entry | {"content_type": "application/vnd.apache.parquet"} for entry in comparable(manifest)
    ] == told


def _file(directory: Path, data: bytes) -> Path:
    path = directory / "object.parquet"
    path.write_bytes(data)
    return path


def test_the_manifest_says_what_lies_in_the_bucket(archiving: Deployment, s3: S3Server) -> None:
    result = archiving.export()

    for file in archiving.manifest().files:
        head = s3.head(BUCKET, file.key)
        assert (file.size_bytes, file.content_type) == (head["ContentLength"], head["ContentType"])
    assert {name: table.file.row_count for name, table in result.exported.items()} == {
        "traces": 2,
        "observations": 1,
        "scores": 1,
        "events": 1,
    }
    assert all(str(t.uri).startswith(f"s3://{BUCKET}/langfuse/") for t in result.exported.values())


def test_an_empty_window_is_an_empty_file(archiving: Deployment) -> None:
    archiving.server.empty()

    archiving.export()

    assert archiving.rows("traces") == []
    assert {file.row_count for file in archiving.manifest().files} == {0}


def test_a_window_that_is_exported_again_replaces_its_objects(archiving: Deployment) -> None:
    archiving.export()
    archiving.insert("traces", trace("late"))

    archiving.export()

    assert archiving.ids("traces") == ["late", "t1", "t2"]
    assert archiving.manifest().revision == 2


def test_the_query_carries_the_limits_and_no_secret(archiving: Deployment) -> None:
    seen = len(archiving.server.exports_in_query_log())

    result = archiving.export(tables=[TRACES])

    queries = archiving.server.exports_in_query_log()[seen:]
    [writing] = [query for query in queries if query["query"].startswith("INSERT INTO FUNCTION s3(")]
    usual = default_limits(archiving.server)
    assert {name: writing["settings"].get(name) for name in usual} == usual
    assert json.loads(writing["comment"]) == {
        "product": "langfuse-export",
        "purpose": "export",
        "project": PROJECT,
        "table": "traces",
        "window": str(HOUR),
    }
    query_id = result.exported["traces"].file.query_id
    by_id = (
        f"SELECT written_rows FROM system.query_log WHERE query_id IN ['{query_id}'] AND type = 'QueryFinish'"
    )
    assert archiving.server.rows(by_id) == [{"written_rows": 2}]
    for text in [str(query) for query in queries] + [str(request) for request in archiving.server.requests]:
        assert SECRET not in text
    logged = archiving.server.execute(
        f"SELECT count() FROM system.query_log WHERE query LIKE '%{SECRET[:9]}%'"
    )
    assert logged.strip() == "0"


def test_no_payload_passes_through_the_worker(archiving: Deployment) -> None:
    seen = len(archiving.server.requests)

    archiving.export()

    payload = [request.sql for request in archiving.server.requests[seen:] if "t.input" in request.sql]
    assert payload
    assert all(sql.startswith("INSERT INTO FUNCTION s3(") for sql in payload)


@pytest.mark.parametrize("project_id", ["we{i}rd *?", "a b", "ü%41=+"])
def test_names_that_mean_something_to_clickhouse_are_kept(archiving: Deployment, project_id: str) -> None:
    archiving.insert("traces", trace("t1") | {"project_id": project_id})
    project = ProjectExport(**{**vars(archiving.project), "project_id": project_id})

    archiving.exporter(project).export(HOUR, project.tables)

    assert archiving.store.keys("") == sorted(
        [project.object_key(table, HOUR) for table in project.tables] + [project.manifest_key(HOUR)]
    )
    data = archiving.store.read(project.object_key(TRACES, HOUR))
    assert [row["id"] for row in read_rows(data, project.encoding)] == ["t1"]


def test_a_window_that_is_too_heavy_passes_through_the_worker_in_parts(archiving: Deployment) -> None:
    archiving.insert("traces", *[trace(f"more{n}") for n in range(20)])
    archiving.server.break_next(TOO_MUCH_AT_ONCE)

    result = archiving.export(tables=[TRACES])

    file = result.exported["traces"].file
    data = archiving.store.read(archiving.project.object_key(TRACES, HOUR))
    assert file.parts > 1
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert len(archiving.ids("traces")) == 22
    assert archiving.store.keys("_incomplete") == []


def test_what_s3_does_not_copy_at_once_is_copied_by_the_worker(
    archiving: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_transfer, "_S3_COPY_BYTES", 1000)

    archiving.export()

    assert archiving.ids("traces") == ["t1", "t2"]
    assert {file.content_type for file in archiving.manifest().files} == {"application/vnd.apache.parquet"}
    assert archiving.store.keys("_incomplete") == []


def test_every_table_in_azure(azure: AzureServer, tmp_path: Path) -> None:
    azure.create_container(BUCKET)
    with writing_to_azure(tmp_path, azure) as server:
        destination = azure.store_config(BUCKET, "langfuse/")
        deployment = Deployment(server, tmp_path, destination=destination, named_collection=COLLECTION)
        with deployment.with_(tables=tuple(ALL_TABLES.values())) as deployment:
            deployment.insert("traces", trace("t1"), trace("other-hour", NOON.replace(hour=20)))

            deployment.export()

            assert deployment.ids("traces") == ["t1"]
            assert azure.keys(BUCKET) == sorted(
                [file.key for file in deployment.manifest().files]
                + [f"langfuse/{deployment.project.manifest_key(HOUR)}"]
            )


def test_the_user_of_exports_may_do_it_with_the_grants_that_ship(s3: S3Server, tmp_path: Path) -> None:
    s3.create_bucket(BUCKET)
    environment = {**PASSWORDS, **s3_environment(s3.url)}
    users = write_users(tmp_path / "users", "export", SHIPPED_USERS, SERVER_MODE["grants"])
    with writing_to_s3(tmp_path / "data", s3.url) as administrator:
        insert(administrator.execute, "traces", [trace("t1")])
    with (
        ClickHouseServer(
            tmp_path / "data", "export", "secret", environment, users, SERVER_MODE["s3"]
        ) as server,
        to_bucket(server, s3) as deployment,
    ):
        deployment.export()
        assert deployment.ids("traces") == ["t1"]
        elsewhere = (
            f"INSERT INTO FUNCTION s3({COLLECTION}, url = 'http://127.0.0.1:9/', filename = 'x') SELECT 1"
        )
        with pytest.raises(AssertionError, match="Override not allowed for 'url'"):
            server.execute(elsewhere)
