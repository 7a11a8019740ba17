"""The rows do not depend on how events were batched, in which order they came, or how often."""

import random

import pytest

from langfuse_ingest.jobs import ingest_job
from langfuse_ingest.runtime import build_runtime
from langfuse_worker.settings import settings
from tests.ingest.deployment import PROJECT, Deployment
from tests.ingest.sessions import START, Event, event, sessions
from tests.ingest.spans import ROOT, TRACE, ingest, span

TABLES = ("traces", "observations", "scores", "events_full")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_repeated_and_split_batches_give_the_rows_of_events_in_order(
    deployment: Deployment, seed: int
) -> None:
    events = list(sessions(25, seed))
    deployment.ingest(events, size=len(events))
    in_order = {table: deployment.rows(table) for table in TABLES}
    assert [len(in_order[table]) for table in TABLES] == [25, 50, 50, 75]
    deployment.clickhouse.empty()

    chance = random.Random(seed)
    shuffled = [*events, *chance.sample(events, 80)]
    chance.shuffle(shuffled)
    while shuffled:
        size = chance.randrange(1, 40)
        deployment.accept_all(shuffled[:size])
        del shuffled[:size]
        if chance.random() < 0.5:
            deployment.work()
    deployment.work()

    for table in TABLES:
        assert deployment.rows(table) == in_order[table], table


def test_an_earlier_event_that_comes_later_moves_the_row_and_leaves_none_behind(
    deployment: Deployment,
) -> None:
    late = event(
        "trace-create", START.replace(day=3), {"id": "t", "timestamp": "2026-06-03T00:00:00Z", "name": "b"}
    )
    early = event("trace-create", START, {"id": "t", "timestamp": "2026-06-01T00:00:00Z", "userId": "u"})
    deployment.ingest([late])
    assert [row["timestamp"][:10] for row in deployment.rows("traces")] == ["2026-06-03"]

    deployment.ingest([early])

    [trace] = deployment.rows("traces")
    assert (trace["timestamp"][:10], trace["name"], trace["user_id"]) == ("2026-06-01", "b", "u")
    [span] = deployment.rows("events_full")
    assert (span["span_id"], span["start_time"][:10]) == ("t-t", "2026-06-01")


def test_a_moved_row_leaves_none_behind_where_an_insert_broke_off_before_its_view(
    deployment: Deployment,
) -> None:
    deployment.ingest([event("span-update", START.replace(day=3), {"id": "o", "name": "b"})])
    earlier = event("span-create", START, {"id": "o", "traceId": "t"})
    deployment.clickhouse.execute("DETACH TABLE events_core_mv")
    try:
        deployment.ingest([earlier])
    finally:
        deployment.clickhouse.execute("ATTACH TABLE events_core_mv")
    assert [row["trace_id"] for row in deployment.rows("events_full")] == ["t"]
    assert [row["trace_id"] for row in deployment.rows("events_core")] != ["t"]

    deployment.ingest([earlier])  # as the job that has failed is tried again

    assert [row["trace_id"] for row in deployment.rows("events_core")] == ["t"]


def test_a_trace_of_spans_that_the_api_tells_of_too_is_the_same_whichever_came_first(
    deployment: Deployment,
) -> None:
    from_api = event("trace-create", START, {"id": TRACE, "tags": ["by the api"]})
    of_span = span(ROOT, name="root")

    deployment.ingest([from_api])
    ingest(deployment, of_span)
    first = {table: deployment.rows(table) for table in TABLES}
    deployment.clickhouse.empty()
    ingest(deployment, of_span)
    deployment.ingest([from_api])

    assert {table: deployment.rows(table) for table in TABLES} == first
    assert sorted(row["span_id"] for row in first["events_full"]) == sorted([ROOT, f"t-{TRACE}"])
    assert [(row["name"], row["tags"]) for row in first["traces"]] == [("root", ["by the api"])]


@pytest.mark.parametrize("batches", [[[1, 2, 3]], [[3, 1], [2]], [[2, 3, 1]]])
def test_a_trace_of_spans_that_start_together_does_not_depend_on_their_batches(
    deployment: Deployment, batches: list[list[int]]
) -> None:
    for batch in batches:
        spans = [span(f"{n}" * 16, ROOT, langfuse__trace__name=f"named by {n}") for n in batch]
        ingest(deployment, *spans)

    assert [row["name"] for row in deployment.rows("traces")] == ["named by 3"]


def test_a_start_that_moves_by_microseconds_leaves_no_row_behind(deployment: Deployment) -> None:
    def span(hour: int, start: str) -> Event:
        body = {"id": "o", "traceId": "t", "startTime": f"2026-06-01T08:00:00.{start}Z"}
        return event("span-create", START.replace(hour=hour), body)

    deployment.ingest([span(9, "123456")])
    deployment.ingest([span(8, "123789")])

    assert [row["start_time"] for row in deployment.rows("events_full")] == ["2026-06-01 08:00:00.123789"]


def test_two_consumers_that_merge_an_entity_at_once_leave_one_row(deployment: Deployment) -> None:
    update = event("trace-create", START.replace(second=7), {"id": "t", "name": "b"})
    create = event("trace-create", START, {"id": "t", "timestamp": "2026-06-01T07:59:00Z", "userId": "u"})
    segment = deployment.accept([update]).segment

    def another_consumer() -> None:
        other = deployment.accept([create]).segment
        assert other is not None
        build_runtime(settings()).ingestion.ingest([ingest_job(other)])

    deployment.ingest_while(segment, another_consumer)

    [trace] = deployment.rows("traces")
    assert (trace["name"], trace["user_id"]) == ("b", "u")
    [span] = deployment.rows("events_full")
    assert (span["start_time"][:19], span["user_id"]) == ("2026-06-01 07:59:00", "u")


def test_a_span_that_turns_out_to_be_a_generation_is_one_row(deployment: Deployment) -> None:
    deployment.ingest([event("span-create", START, {"id": "o", "traceId": "t", "name": "x"})])
    later = event("generation-create", START.replace(second=5), {"id": "o", "traceId": "t", "model": "m"})
    deployment.ingest([later])

    [observation] = deployment.rows("observations")
    assert (observation["type"], observation["name"], observation["provided_model_name"]) == (
        "GENERATION",
        "x",
        "m",
    )


def test_a_renamed_score_is_one_row(deployment: Deployment) -> None:
    deployment.ingest([event("score-create", START, {"id": "s", "traceId": "t", "name": "a", "value": 1})])
    deployment.ingest(
        [event("score-create", START.replace(minute=1), {"id": "s", "traceId": "t", "name": "b", "value": 2})]
    )

    [score] = deployment.rows("scores")
    assert (score["name"], score["value"]) == ("b", 2)


def test_a_row_that_langfuse_wrote_is_what_events_are_merged_into(deployment: Deployment) -> None:
    deployment.clickhouse.execute(
        "INSERT INTO traces (id, project_id, timestamp, name, user_id, metadata, tags, environment, "
        "bookmarked, created_at, updated_at, event_ts) VALUES ('t', 'p1', '2026-06-01 08:00:00', 'old', 'u', "
        "{'a': '1'}, ['x'], 'staging', true, '2026-06-01 08:00:01', '2026-06-01 08:00:01', "
        "'2026-06-01 08:00:01')"
    )
    update = {"id": "t", "name": "new", "tags": ["b"], "metadata": {"b": 2}, "environment": "prod"}

    deployment.ingest([event("trace-create", START.replace(hour=9), update)])

    [trace] = deployment.rows("traces")
    assert (trace["name"], trace["user_id"], trace["environment"]) == ("new", "u", "staging")
    assert (trace["metadata"], trace["tags"], trace["bookmarked"]) == ({"a": "1", "b": "2"}, ["b", "x"], True)
    assert trace["timestamp"].startswith("2026-06-01 08:00:00")


def test_a_row_of_langfuse_may_have_times_that_no_event_may_have(deployment: Deployment) -> None:
    deployment.clickhouse.execute(
        "INSERT INTO observations (id, project_id, trace_id, type, start_time, end_time, created_at) "
        "VALUES ('o', 'p1', 't', 'SPAN', '2026-06-01 08:00:00', '2299-12-31 23:59:59', '2026-06-01')"
    )

    deployment.ingest([event("span-update", START, {"id": "o", "name": "new"})])

    [row] = deployment.rows("observations")
    assert (row["name"], row["end_time"][:4], deployment.letters) == ("new", "2299", [])


def test_two_consumers_at_once_lose_no_part_of_an_entity(deployment: Deployment) -> None:
    parts = [
        event("trace-create", START.replace(microsecond=n * 1000), {"id": "t", "metadata": {f"k{n}": n}})
        for n in range(60)
    ]
    with deployment.consumers(
        "--queue", "ingestion-queue", LANGFUSE_INGESTION_CLICKHOUSE_WRITE_BATCH_SIZE="1"
    ):
        for part in parts:
            assert deployment.accept([part]).accepted
        deployment.wait_until_empty()

    [trace] = deployment.rows("traces")
    assert trace["metadata"] == {f"k{n}": str(n) for n in range(60)}
    assert {row["project_id"] for row in deployment.rows("traces")} == {PROJECT}
