"""Where the event log is, from Langfuse's variables."""

import pytest

from langfuse_ingest.event_log import event_log_store
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.settings import load_settings
from tests.servers.azure import ACCOUNT, KEY, AzureServer

PREFIX = "LANGFUSE_S3_EVENT_UPLOAD_"


def test_the_log_may_be_in_azure(azure: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    azure.create_container("event-log")
    for name, value in {
        "BUCKET": "az://event-log/",
        "PREFIX": "events/",
        "ENDPOINT": azure.url,
        "ACCESS_KEY_ID": ACCOUNT,
        "SECRET_ACCESS_KEY": KEY,
    }.items():
        monkeypatch.setenv(PREFIX + name, value)

    BlobStore(event_log_store(load_settings())).write_bytes("a", b"x", "text/plain")

    assert azure.keys("event-log") == ["events/a"]
