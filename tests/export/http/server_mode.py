"""A ClickHouse that has a bucket's credentials in the named collection that ships with the product."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.export.http.exporting import Deployment
from tests.servers.azure import ACCOUNT, KEY, AzureServer
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import SERVER_MODE
from tests.servers.s3 import S3Server

COLLECTION = "langfuse_archive"
BUCKET = "archive"
SECRET = "the-secret-of-the-bucket"


def s3_environment(url: str) -> dict[str, str]:
    """Variables of a ClickHouse server that writes to the bucket at that address of S3."""
    prefix = "LANGFUSE_ARCHIVE_"
    keys = {prefix + "ACCESS_KEY_ID": "key", prefix + "SECRET_ACCESS_KEY": SECRET}
    return {prefix + "URL": f"{url}/{BUCKET}/", **keys}


@contextmanager
def writing_to_s3(directory: Path, url: str) -> Iterator[ClickHouseServer]:
    """A server with the collection for S3."""
    with ClickHouseServer(directory, environment=s3_environment(url), config=SERVER_MODE["s3"]) as server:
        yield server


@contextmanager
def writing_to_azure(directory: Path, azure: AzureServer) -> Iterator[ClickHouseServer]:
    """A server with the collection for Azure."""
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azure.url};"
    )
    environment = {
        "LANGFUSE_ARCHIVE_CONNECTION_STRING": connection,
        "LANGFUSE_ARCHIVE_CONTAINER": BUCKET,
    }
    with ClickHouseServer(directory, environment=environment, config=SERVER_MODE["azure"]) as server:
        yield server


def to_bucket(server: ClickHouseServer, s3: S3Server, endpoint: str | None = None) -> Deployment:
    """Exports to the bucket in server mode.

    Args:
        server: has the collection.
        s3: has the bucket.
        endpoint: where the worker reaches it.
    """
    destination = s3.store_config(BUCKET, "langfuse/", endpoint)
    return Deployment(server, Path(), destination=destination, named_collection=COLLECTION)
