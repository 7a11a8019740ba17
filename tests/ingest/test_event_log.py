"""Where the event log is, from Langfuse's variables, and which of its folders a project has."""

import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from langfuse_ingest.event_log import (
    EntityKey,
    EventLog,
    Group,
    Origin,
    Segment,
    SegmentError,
    event_log_store,
)
from langfuse_ingest.events import Entity
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


def test_a_segment_without_its_end_is_none(tmp_path: Path) -> None:
    store = BlobStore(StoreConfig(url=f"{tmp_path.as_uri()}/"))
    log = EventLog(store)
    events: list[dict[str, Any]] = [{"id": "e", "type": "trace-create", "body": {"input": "x"}}]
    groups = [Group(Entity.TRACE, id, events) for id in ("a", "b")]
    _, size = log.write("p", groups[:1], Origin(), datetime.now(UTC))
    events[0]["body"]["input"] = "x" * ((128 << 10) - size + 1)  # the first block ends with the first group
    key, _ = log.write("p", groups, Origin(), datetime.now(UTC))
    whole = store.read(key)
    cuts = {f"p/{end}": whole[:end] for end in range(len(whole))}
    for name, data in cuts.items():
        store.write_bytes(name, data, "application/zstd")

    assert {name for name, read in log.read(cuts).items() if not isinstance(read, SegmentError)} == set()


def test_memory_does_not_grow_with_the_neighbours_of_what_is_merged(tmp_path: Path) -> None:
    log = EventLog(BlobStore(StoreConfig(url=f"{tmp_path.as_uri()}/")), concurrent_reads=4)
    events: list[dict[str, Any]] = [{"id": "e", "type": "trace-create", "body": {"input": "x"}}]
    large = [{"body": {"input": "x" * (2 << 20)}}]
    small = [{"body": {"input": list(range(100_000))}}]  # small as JSON, and 4 MB in memory
    groups = [
        Group(Entity.TRACE, "a", events),
        Group(Entity.TRACE, "b", large),
        Group(Entity.TRACE, "c", small),
    ]
    keys = [log.write("p", groups, Origin(), datetime.now(UTC))[0] for _ in range(100)]
    wanted = EntityKey("p", Entity.TRACE, "a")

    tracemalloc.start()
    try:
        found = log.read_groups({key: [wanted] for key in keys})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [segment.groups for segment in found.values() if isinstance(segment, Segment)] == [
        {wanted: groups[0]}
    ] * 100
    assert peak < 220 << 20  # the cache and four segments in work, of 600 MB
