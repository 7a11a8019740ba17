"""Rows that ClickHouse refuses: each is a dead letter until it is stored or purged, and is counted once."""

import pytest

from langfuse_ingest.dead_letters import dead_letters, purge, replay, replay_all
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.event_log import Group
from langfuse_ingest.events import Entity
from langfuse_ingest.queues import queue
from langfuse_ingest.sharding import shard_of
from tests.ingest.deployment import PROJECT, Deployment
from tests.ingest.sessions import trace


def test_a_refused_row_goes_to_the_dead_letters_and_its_neighbours_are_stored(poison: Deployment) -> None:
    poison.ingest([trace(f"t{n}", name="poison" if n in (13, 40) else "fine") for n in range(64)])

    assert len(poison.ids("traces")) == 62
    assert {"t13", "t40"}.isdisjoint(poison.ids("traces"))
    assert poison.backlog == 0
    assert sorted(letter.arguments["entity"][1] for letter in poison.letters) == ["t13", "t40"]
    assert all("no_poison" in letter.reason and "t" in letter.reason for letter in poison.letters)


def test_the_reason_of_a_refused_row_names_the_entity_and_the_column(deployment: Deployment) -> None:
    body = {"id": "o", "completionStartTime": "soon"}  # as no producer of ours writes it
    event = {"id": "e", "timestamp": "2026-06-01T08:00:00.000000Z", "type": "generation-create", "body": body}
    deployment.log_unchecked(Group(Entity.OBSERVATION, "o", [event]))

    deployment.work()

    [letter] = deployment.letters
    assert "refuses observation 'o'" in letter.reason
    assert "completion_start_time" in letter.reason


def test_a_refused_row_delivered_twice_is_one_dead_letter(poison: Deployment) -> None:
    poison.ingest([trace("t", name="poison")])
    poison.ingest([trace("t", name="poison")])

    assert len(poison.letters) == 1


def test_a_replayed_dead_letter_is_stored_once_its_cause_is_gone(poison: Deployment) -> None:
    poison.ingest([trace("t", name="poison"), trace("other")])
    [letter] = poison.letters
    poison.take_poison()

    assert replay(poison.redis.client, letter)
    poison.work()

    assert sorted(poison.ids("traces")) == ["other", "t"]
    assert poison.letters == []
    assert poison.redis.client.keys(f"*{letter.id}*") == []


def test_a_replayed_dead_letter_that_is_refused_again_stays_one(poison: Deployment) -> None:
    redis = poison.redis.client
    poison.ingest([trace(id, name="poison") for id in ("to purge", "to store")])
    before = poison.letters

    assert replay_all(redis, ["ingestion-queue"]) == 2
    assert (poison.backlog, poison.failed, poison.letters) == (2, 0, [])
    poison.work()

    assert (poison.backlog, poison.failed) == (0, 2)
    assert {letter.id for letter in poison.letters} == {letter.id for letter in before}
    by_entity = {letter.arguments["entity"][1]: letter for letter in poison.letters}
    assert "no_poison" in by_entity["to store"].reason
    assert purge(redis, by_entity["to purge"])
    poison.take_poison()
    assert replay(redis, by_entity["to store"])
    poison.work()
    assert poison.ids("traces") == ["to store"]
    assert (poison.backlog, poison.failed, poison.letters) == (0, 0, [])


def test_a_replayed_job_with_several_refused_rows_leaves_a_dead_letter_for_each(poison: Deployment) -> None:
    receipt = poison.accept([trace(f"t{n}", name="poison" if n else "fine") for n in range(3)])
    store = poison.store
    segment = store.read(str(receipt.segment))
    store.delete(str(receipt.segment))
    poison.work()
    [letter] = poison.letters
    store.write_bytes(str(receipt.segment), segment, "text/plain")

    assert replay(poison.redis.client, letter)
    poison.work()

    assert poison.ids("traces") == ["t0"]
    assert sorted(letter.arguments["entity"][1] for letter in poison.letters) == ["t1", "t2"]
    assert (poison.backlog, poison.failed) == (0, 2)


def test_a_row_that_two_queues_refuse_is_a_dead_letter_of_each(poison: Deployment) -> None:
    redis = poison.redis.client
    receipt = poison.accept([trace("t", name="poison")])
    enqueue(redis, queue("secondary-ingestion-queue"), [NewJob({"segment": receipt.segment})])
    poison.work()
    first, second = poison.letters
    assert (first.queue, second.queue) == ("ingestion-queue", "secondary-ingestion-queue")

    assert first.id != second.id
    assert purge(redis, first)

    assert (poison.letters, poison.failed) == ([second], 1)
    poison.take_poison()
    assert replay(redis, second)
    poison.work()
    assert (poison.ids("traces"), poison.letters, poison.failed) == (["t"], [], 0)


def test_a_dead_letter_of_a_shard_that_is_none_any_more_is_counted_listed_and_replayed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, store = deployment.redis.client, deployment.store
    monkeypatch.setenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT", "4")
    name = next(f"t{n}" for n in range(99) if shard_of(PROJECT, f"t{n}", 4) == 3)
    receipt = deployment.accept([trace(name)])
    segment = store.read(str(receipt.segment))
    store.delete(str(receipt.segment))
    deployment.work("ingestion-queue-3")
    monkeypatch.delenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT")

    [letter] = deployment.letters
    assert (letter.queue, deployment.failed) == ("ingestion-queue-3", 1)
    assert list(dead_letters(redis, ["ingestion-queue"])) == [letter]
    assert list(dead_letters(redis, ["otel-ingestion-queue"])) == []

    store.write_bytes(str(receipt.segment), segment, "text/plain")
    assert replay(redis, letter)
    deployment.work("ingestion-queue")
    assert (deployment.ids("traces"), deployment.letters, deployment.failed) == ([name], [], 0)


def test_a_purged_dead_letter_is_gone(poison: Deployment) -> None:
    poison.ingest([trace("t", name="poison")])
    [letter] = poison.letters

    assert purge(poison.redis.client, letter)
    assert not purge(poison.redis.client, letter)
    assert not replay(poison.redis.client, letter)
    assert (poison.letters, poison.failed) == ([], 0)
    assert poison.redis.client.keys(f"*{letter.id}*") == []


def test_a_dead_letter_that_was_put_back_is_not_purged(poison: Deployment) -> None:
    redis = poison.redis.client
    poison.ingest([trace("t", name="poison")])
    [letter] = poison.letters
    poison.take_poison()

    assert replay(redis, letter)
    assert not purge(redis, letter)
    assert not replay(redis, letter)

    assert poison.backlog == 1
    poison.work()
    assert poison.ids("traces") == ["t"]
