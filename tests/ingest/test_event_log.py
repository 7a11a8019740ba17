"""Where the event log is, from Langfuse's variables, and which of its folders a project has."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from langfuse_ingest.event_log import EventLog, Origin, event_log_store
from langfuse_worker.blobstore import BlobStore, StoreConfig
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


@pytest.mark.parametrize("project", ["", ".", "..", "/", "a/b", "a\x7fb", "p" * 256, "ü" * 200])
def test_a_project_has_its_own_segments_whatever_its_id(tmp_path: Path, project: str) -> None:
    log = EventLog(BlobStore(StoreConfig(url=f"{tmp_path.as_uri()}/")))
    for other in ("other", project[:-1] + "!"):
        log.write(other, [], Origin(), datetime.now(UTC))

    key, _ = log.write(project, [], Origin(), datetime.now(UTC))

    assert log.keys_of(project) == [key]
