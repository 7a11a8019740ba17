"""The write mode decides which tables get traces and observations; projects and shards decide the queue."""

import json

import pytest

from langfuse_ingest.sharding import shard_of
from tests.ingest.deployment import Deployment, configure
from tests.ingest.sessions import START, event, sessions, trace
from tests.servers.clickhouse_http import Fault


@pytest.mark.parametrize(
    ("mode", "tables"),
    [
        ("legacy", {"traces": 3, "observations": 6, "scores": 6, "events_full": 0}),
        ("dual", {"traces": 3, "observations": 6, "scores": 6, "events_full": 9}),
        ("events_only", {"traces": 0, "observations": 0, "scores": 6, "events_full": 9}),
    ],
)
def test_write_modes(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, mode: str, tables: dict[str, int]
) -> None:
    configure(monkeypatch, LANGFUSE_MIGRATION_V4_WRITE_MODE=mode)

    deployment.ingest(list(sessions(3)), size=5)

    assert {table: len(deployment.rows(table)) for table in tables} == tables


def test_events_of_the_api_are_spans_below_the_span_of_their_trace(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(1)))

    spans = {row["span_id"]: row for row in deployment.rows("events_full")}
    assert spans["t-trace-1-0"]["parent_span_id"] == ""
    assert (spans["t-trace-1-0"]["user_id"], spans["t-trace-1-0"]["session_id"]) == ("u0", "s0")
    assert spans["span-1-0"]["parent_span_id"] == "t-trace-1-0"
    assert spans["generation-1-0"]["parent_span_id"] == "span-1-0"


def test_events_only_merges_into_a_row_that_langfuse_wrote(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, LANGFUSE_MIGRATION_V4_WRITE_MODE="events_only")
    deployment.clickhouse.execute(
        "INSERT INTO events_full (project_id, trace_id, span_id, start_time, name, type, input, "
        "metadata_names, metadata_values, created_at, updated_at, event_ts) VALUES ('p1', 't', 'o', "
        "'2026-06-01 08:00:00', 'old', 'SPAN', 'in', ['a'], ['1'], '2026-06-01 08:00:01', "
        "'2026-06-01 08:00:01', '2026-06-01 08:00:01')"
    )

    deployment.ingest(
        [event("span-update", START, {"id": "o", "traceId": "t", "output": "out", "metadata": {"b": 2}})]
    )

    [row] = deployment.rows("events_full")
    assert (row["name"], row["input"], row["output"]) == ("old", "in", "out")
    assert (row["metadata_names"], row["metadata_values"]) == (["a", "b"], ["1", "2"])


@pytest.mark.parametrize("mode", ["events_only", "dual"])
def test_a_merge_keeps_what_only_langfuse_knows_of_a_row(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    configure(monkeypatch, LANGFUSE_MIGRATION_V4_WRITE_MODE=mode)
    kept = {
        "model_id": "m",
        "prompt_id": "p",
        "usage_pricing_tier_id": "tier",
        "tool_definitions": {"search": "{}"},
        "tool_calls": ["{}"],
        "tool_call_names": ["search"],
        "bookmarked": True,
        "user_id": "u",
        "tags": ["a"],
        "experiment_item_version": "2026-05-01 00:00:00.123456",
        "telemetry_sdk_name": "sdk",
        "ingestion_api_key": "pk",
    }
    times = dict.fromkeys(("start_time", "created_at", "updated_at", "event_ts"), "2026-06-01 08:00:00")
    row = {"project_id": "p1", "trace_id": "t", "name": "old", "source": "otel", **kept, **times}
    for id in ("o", "t-t"):
        line = json.dumps({**row, "span_id": id})
        deployment.clickhouse.execute(f"INSERT INTO events_full FORMAT JSONEachRow {line}")

    deployment.ingest([event("span-update", START, {"id": "o", "traceId": "t", "name": None}), trace("t")])
    deployment.ingest([event("span-update", START, {"id": "o", "output": "out"}), trace("t", output="out")])

    found = deployment.rows("events_full")
    assert [{name: row[name] for name in kept} for row in found] == [kept, kept]
    assert [(row["span_id"], row["name"], row["output"]) for row in found] == [
        ("o", "", "out"),
        ("t-t", "old", "out"),
    ]
    assert found[0]["source"] == "otel"


def test_shards_spread_entities_and_every_shard_is_worked_off(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT", "3")
    deployment.accept_all(list(sessions(10)))

    names = ["ingestion-queue", "ingestion-queue-1", "ingestion-queue-2"]
    assert all(deployment.waiting(name) for name in names)
    deployment.work(*names)

    assert len(deployment.ids("traces")) == 10
    assert len(deployment.ids("observations")) == 20
    assert shard_of("p", "t", 1) == 0
    assert {shard_of("p", f"t{n}", 3) for n in range(50)} == {0, 1, 2}


def test_jobs_in_shards_that_are_none_any_more_are_worked_off_retries_included(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT", "3")
    deployment.accept_all(list(sessions(20)))
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO", code=241, times=3))
    deployment.work("ingestion-queue-2")  # fails, and waits for its next attempt
    monkeypatch.delenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT")
    assert deployment.backlog > len(deployment.waiting("ingestion-queue"))

    with deployment.consumers("--queue", "ingestion-queue"):
        deployment.wait_until_empty()

    assert len(deployment.ids("traces")) == 20
    assert deployment.letters == []


def test_projects_of_the_secondary_queue_do_not_delay_others(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, LANGFUSE_SECONDARY_INGESTION_QUEUE_ENABLED_PROJECT_IDS="heavy, heavier")

    deployment.accept(list(sessions(1)), project="heavier")
    deployment.accept(list(sessions(1)), project="light")

    assert len(deployment.waiting("secondary-ingestion-queue")) == 1
    assert len(deployment.waiting("ingestion-queue")) == 1
    deployment.work()
    assert {row["project_id"] for row in deployment.rows("traces")} == {"heavier", "light"}
