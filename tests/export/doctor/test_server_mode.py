"""Whether ClickHouse can write into buckets itself, tried on servers that can and on such that cannot."""

import re
from pathlib import Path

import pytest

from langfuse_export.doctor.isolation import check_user
from langfuse_export.doctor.server_mode import check_server_mode
from langfuse_export.doctor.subject import Subject
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.doctor import Finding, Status
from tests.export.http.server_mode import BUCKET, COLLECTION, s3_environment
from tests.export.project import write_catalog
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault
from tests.servers.clickhouse_users import PASSWORDS, SERVER_MODE, SHIPPED_USERS, write_users
from tests.servers.s3 import S3Server


def server_of(
    directory: Path,
    url: str,
    grants: str = SERVER_MODE["grants"],
    config: str = SERVER_MODE["s3"],
) -> ClickHouseServer:
    """A server with the collection, whose user is `export` of the shipped files."""
    users = write_users(directory / "users", "export", SHIPPED_USERS, grants)
    environment = {**PASSWORDS, **s3_environment(url)}
    with ClickHouseServer(directory / "data", environment=environment, config=config):
        pass  # makes the tables, which this user may not
    return ClickHouseServer(directory / "data", "export", "secret", environment, users, config)


def subject_of(server: ClickHouseServer, s3: S3Server, directory: Path, transfer: str = "server") -> Subject:
    """A deployment whose only destination is the bucket."""
    config = s3.store_config(BUCKET, "langfuse/")
    archive = {
        "url": config.url,
        "endpoint": config.endpoint,
        "access_key_id": config.access_key_id,
        "secret_access_key": config.secret_access_key,
        "transfer": transfer,
    }
    if transfer == "server":
        archive["named_collection"] = COLLECTION
    catalog = write_catalog(directory, destination=archive)
    return Subject(server.settings(LANGFUSE_EXPORT_CONFIG=str(catalog)))


def tried(server: ClickHouseServer, s3: S3Server, directory: Path) -> Finding:
    """What the check finds of the destination."""
    [finding] = check_server_mode(subject_of(server, s3, directory))
    assert finding.what == "server mode of blobs"
    return finding


def left_behind(s3: S3Server, bucket: str = BUCKET) -> list[str]:
    """Objects of the bucket."""
    return BlobStore(s3.store_config(bucket, "")).keys("")


def test_the_files_that_ship_are_all_that_it_takes(s3: S3Server, tmp_path: Path) -> None:
    s3.create_bucket(BUCKET)
    with server_of(tmp_path, s3.url) as server:
        finding = tried(server, s3, tmp_path)
        assert finding.status is Status.OK, finding
        assert left_behind(s3) == []

        # Which may have the queries of whoever made the tables.
        server.break_next(Fault("refuse", "query_log", code=497, times=-1))
        [user] = check_user(subject_of(server, s3, tmp_path))
        assert user.status is Status.OK, user
        [user] = check_user(subject_of(server, s3, tmp_path, transfer="worker"))
        assert (user.status, "CREATE TEMPORARY TABLE" in user.result) == (Status.WARNING, True)


@pytest.mark.parametrize("missing", ["collection", "function", "s3"])
def test_a_grant_that_is_missing_is_named(s3: S3Server, tmp_path: Path, missing: str) -> None:
    s3.create_bucket(BUCKET)
    grant = re.search(rf'<query of="{missing}">GRANT (.*) ON (.*)</query>', SERVER_MODE["grants"])
    assert grant is not None
    with server_of(tmp_path, s3.url, SERVER_MODE["grants"].replace(grant[0], "")) as server:
        finding = tried(server, s3, tmp_path)
    assert finding.status is Status.PROBLEM
    assert f"{grant[1]} ON {grant[2]}" in finding.result
    assert "grants.xml" in finding.remedy
    assert left_behind(s3) == []


def test_a_server_without_the_collection_is_a_problem(s3: S3Server, tmp_path: Path) -> None:
    s3.create_bucket(BUCKET)
    with server_of(tmp_path, s3.url, config="<clickhouse/>") as server:
        finding = tried(server, s3, tmp_path)
    assert finding.status is Status.PROBLEM
    assert COLLECTION in finding.result
    assert "deploy/clickhouse/server-mode" in finding.remedy


def test_a_collection_of_another_bucket_is_a_problem(s3: S3Server, tmp_path: Path) -> None:
    s3.create_bucket(BUCKET)
    s3.create_bucket("other")
    config = SERVER_MODE["s3"].replace('from_env="LANGFUSE_ARCHIVE_URL"/>', f">{s3.url}/other/</url>")
    with server_of(tmp_path, s3.url, config=config) as server:
        finding = tried(server, s3, tmp_path)
    assert finding.status is Status.PROBLEM
    assert "it is not there" in finding.result
    [astray] = left_behind(s3, "other")
    assert f"delete {astray}" in finding.remedy


def test_a_bucket_that_clickhouse_does_not_find_is_a_problem(s3: S3Server, tmp_path: Path) -> None:
    s3.create_bucket(BUCKET)
    config = SERVER_MODE["s3"].replace('from_env="LANGFUSE_ARCHIVE_URL"/>', f">{s3.url}/nowhere/</url>")
    with server_of(tmp_path, s3.url, config=config) as server:
        finding = tried(server, s3, tmp_path)
    assert finding.status is Status.PROBLEM
    assert "does not exist" in finding.result
    assert "the address and the credentials in the collection" in finding.remedy
