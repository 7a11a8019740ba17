"""Consumers, Redis and ClickHouse are killed at random under load; then every event is accounted for."""

import random
import time

from redis.exceptions import RedisError

from tests.ingest.deployment import Deployment
from tests.ingest.sessions import Event, sessions
from tests.waiting import wait_for

SEED = 20260601
ROUNDS = 8


def test_every_accepted_event_is_stored_whatever_is_killed(deployment: Deployment) -> None:
    chance = random.Random(SEED)
    events = list(sessions(240))
    accepted: list[Event] = []
    with deployment.consumers(
        "--queue", "ingestion-queue", LANGFUSE_INGESTION_CLICKHOUSE_WRITE_BATCH_SIZE="60"
    ) as consumers:
        for _ in range(ROUNDS):
            part, events = events[:240], events[240:]
            accepted += _accept(deployment, part, chance)
            kind = chance.choice(["consumers", "redis", "clickhouse", "consumers and redis"])
            if "consumers" in kind:
                consumers.kill_children()
            if "redis" in kind:
                deployment.redis.kill()
                time.sleep(chance.random())
                deployment.redis.start()
            if "clickhouse" in kind:
                deployment.clickhouse.kill()
                time.sleep(chance.random())
                deployment.clickhouse.start()
        accepted += _accept(deployment, events, chance)
        wait_for(lambda: _is_stored(deployment), consumers.log.read_text)

    assert len(accepted) == 240 * 8
    assert deployment.letters == []
    survived = {
        table: deployment.rows(table) for table in ("traces", "observations", "scores", "events_full")
    }
    assert [len(rows) for rows in survived.values()] == [240, 480, 480, 720]
    deployment.clickhouse.empty()
    deployment.ingest(accepted, size=len(accepted))
    assert {table: deployment.rows(table) for table in survived} == survived


def _accept(deployment: Deployment, events: list[Event], chance: random.Random) -> list[Event]:
    """Put events in as a client does: a batch that is not acknowledged is sent again."""
    rest = list(events)
    while rest:
        size = chance.randrange(5, 40)
        for _ in range(60):
            try:
                assert not deployment.accept(rest[:size]).rejected
                break
            except RedisError:
                time.sleep(0.2)
        else:
            raise TimeoutError("Redis does not come back")
        del rest[:size]
    return events


def _is_stored(deployment: Deployment) -> bool:
    """Whether nothing waits any more."""
    try:
        return deployment.backlog == 0
    except RedisError:
        return False
