"""Consumers and their supervisor are stopped, killed or stuck, or Redis goes away: no job is lost."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError
from rq import Queue

from langfuse_ingest.consumers.pool import ConsumerPool, ConsumerState
from langfuse_ingest.consumers.restart import RestartDelay
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queues import queue
from tests.ingest.deployment import Deployment
from tests.ingest.sessions import sessions, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.processes import kill_tree
from tests.waiting import wait_for


def writes_traces(deployment: Deployment, seen: int) -> bool:
    """Whether a consumer has begun to write traces since there were so many requests."""
    return any("INSERT INTO traces" in request.sql for request in deployment.clickhouse.requests[seen:])


def test_jobs_of_a_killed_consumer_are_taken_up(deployment: Deployment) -> None:
    stall = Fault("stall", match="INSERT INTO traces", times=-1)
    deployment.clickhouse.break_next(stall)
    seen = len(deployment.clickhouse.requests)
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        deployment.accept_all([trace(f"t{n}") for n in range(10)], size=5)
        wait_for(lambda: writes_traces(deployment, seen), consumers.log.read_text)
        assert consumers.kill_children() >= 1
        deployment.clickhouse.break_next()
        deployment.wait_until_empty()

        assert any('"event": "consumer_died"' in line for line in consumers.lines)
    assert sorted(deployment.ids("traces")) == sorted(f"t{n}" for n in range(10))
    assert deployment.letters == []


def test_a_consumer_that_has_stopped_has_no_thread_left(deployment: Deployment) -> None:
    before = threading.active_count()
    for _ in range(25):  # in RQ's own order of steps about every fifth kept one
        deployment.work("ingestion-queue")
    assert threading.active_count() == before


def test_consumers_stop_when_their_supervisor_was_killed(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "trace-delete") as consumers:
        [pid] = [consumer["pid"] for consumer in consumers.get("/healthz")[1]["consumers"]]
        consumers.process.kill()
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), consumers.log.read_text)
    assert deployment.backlog == 0


def test_the_port_of_a_killed_supervisor_is_free_while_its_consumers_end(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        port, children = urlsplit(consumers.health).port, consumers.children
        assert children
        for child in children:
            os.kill(child, signal.SIGSTOP)
        try:
            consumers.process.kill()
            consumers.process.wait()
            with socket.create_server(("", port or 0)) as successor:
                assert successor.getsockname()[1] == port
        finally:
            for child in children:
                kill_tree(child)


def test_redis_may_restart_in_the_middle(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        deployment.accept_all([trace(f"a{n}") for n in range(40)], size=2)
        deployment.redis.kill()
        wait_for(lambda: consumers.get("/readyz")[0] == 503, consumers.log.read_text)
        deployment.redis.start()
        deployment.accept_all([trace(f"b{n}") for n in range(40)], size=2)
        deployment.wait_until_empty()

    assert len(deployment.ids("traces")) == 80
    assert deployment.letters == []


def test_a_deployment_whose_redis_or_clickhouse_hangs_is_not_ready(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "trace-delete") as consumers:
        with deployment.redis.hanging():
            status, answer = consumers.get("/readyz", within_s=8)
            assert (status, list(answer["missing"])) == (503, ["redis"])
        wait_for(lambda: consumers.get("/readyz")[0] == 200, consumers.log.read_text)

        deployment.clickhouse.break_next(Fault("stall", match="SELECT 1", times=-1))
        status, answer = consumers.get("/readyz", within_s=8)
        assert (status, list(answer["missing"])) == (503, ["clickhouse"])
        deployment.clickhouse.break_next()
        wait_for(lambda: consumers.get("/readyz")[0] == 200, consumers.log.read_text)


def test_a_deployment_whose_redis_is_full_says_so_until_it_has_room(deployment: Deployment) -> None:
    configure = deployment.redis.client.config_set
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        configure("maxmemory", "1mb")
        try:
            wait_for(
                lambda: "maxmemory" in consumers.get("/readyz")[1]["missing"].get("consumers", ""),
                consumers.log.read_text,
            )
        finally:
            configure("maxmemory", "0")
        wait_for(lambda: consumers.get("/readyz")[0] == 200, consumers.log.read_text)
        deployment.accept([trace("t")])
        deployment.wait_until_empty()
    assert deployment.ids("traces") == ["t"]


def test_consumers_stop_while_redis_is_down(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        deployment.redis.kill()
        try:
            # The consumers, not only their listeners to commands, have found out and wait longer and longer.
            wait_for(lambda: "retrying in 4 seconds" in consumers.log.read_text(), consumers.log.read_text)
            assert consumers.stop(signal.SIGTERM) == 0
        finally:
            deployment.redis.start()


def test_sigterm_finishes_the_batch_and_loses_nothing(deployment: Deployment) -> None:
    deployment.accept_all(list(sessions(50)), size=10)
    with deployment.consumers(
        "--queue", "ingestion-queue", LANGFUSE_INGESTION_CLICKHOUSE_WRITE_BATCH_SIZE="20"
    ) as consumers:
        wait_for(lambda: deployment.backlog < 40, consumers.log.read_text)
        assert consumers.stop(signal.SIGTERM) == 0
        assert any('"event": "consumers_stopped"' in line for line in consumers.lines)
    assert deployment.backlog < 40
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        wait_for(lambda: len(deployment.ids("traces")) == 50, consumers.log.read_text)
        deployment.wait_until_empty()

    assert deployment.letters == []


def test_a_job_that_was_taken_when_sigterm_came_is_done(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.accept([trace("t")])
    take = Queue.dequeue_any

    def take_and_stop(*args: Any, **kwargs: Any) -> Any:
        taken = take(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)
        return taken

    monkeypatch.setattr(Queue, "dequeue_any", take_and_stop)
    deployment.work("ingestion-queue")

    assert deployment.ids("traces") == ["t"]
    assert deployment.backlog == 0


def test_consumers_that_do_not_stop_in_time_are_killed_and_their_jobs_kept(deployment: Deployment) -> None:
    deployment.clickhouse.break_next(Fault("stall", match="INSERT INTO traces", times=-1))
    seen = len(deployment.clickhouse.requests)
    with deployment.consumers(
        "--queue", "ingestion-queue", LANGFUSE_WORKER_SHUTDOWN_DEADLINE_S="1"
    ) as consumers:
        deployment.accept([trace("t")])
        wait_for(lambda: writes_traces(deployment, seen), consumers.log.read_text)
        assert consumers.stop() == 1
    deployment.clickhouse.break_next()
    assert deployment.backlog == 1

    with deployment.consumers("--queue", "ingestion-queue"):
        wait_for(lambda: deployment.ids("traces") == ["t"], lambda: str(deployment.backlog))


def test_a_wedged_consumer_is_not_healthy_and_an_idle_one_is(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "trace-delete", LANGFUSE_WORKER_STUCK_AFTER_S="8") as consumers:
        status, answer = consumers.get("/healthz")
        assert (status, answer["wedged"]) == (200, [])
        [pid] = [consumer["pid"] for consumer in answer["consumers"]]

        os.kill(pid, signal.SIGSTOP)

        wait_for(lambda: consumers.get("/healthz")[0] == 503, consumers.log.read_text)
        assert consumers.get("/healthz")[1]["wedged"] == [pid]


def test_a_consumer_that_deletes_for_long_is_healthy(deployment: Deployment) -> None:
    deployment.clickhouse.break_next(Fault("stall", match="INSERT INTO blob_storage_file_log", times=-1))
    enqueue(deployment.redis.client, queue("trace-delete"), [NewJob({"project": "p1", "trace_ids": ["t"]})])
    seen = len(deployment.clickhouse.requests)
    with deployment.consumers("--queue", "trace-delete", LANGFUSE_WORKER_STUCK_AFTER_S="2") as consumers:
        wait_for(
            lambda: any("file_log" in request.sql for request in deployment.clickhouse.requests[seen:]),
            consumers.log.read_text,
        )
        stuck = time.monotonic() + 3
        wait_for(lambda: time.monotonic() > stuck, consumers.log.read_text)
        assert consumers.get("/healthz")[0] == 200
        deployment.clickhouse.break_next()
        deployment.wait_until_empty()


@pytest.fixture
def pool(deployment: Deployment) -> Iterator[ConsumerPool]:
    """One consumer, not started."""
    pool = ConsumerPool(queue("trace-delete"), "trace-delete", 1)
    yield pool
    pool.kill()


def test_a_consumer_whose_supervisor_is_killed_while_it_starts_stops(
    pool: ConsumerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 1)  # who has lost its parent is a child of init
    pool.start_workers(burst=False)
    [consumer] = pool.worker_dict.values()
    consumer.process.join(20)
    assert not consumer.process.is_alive()


def test_a_probe_is_answered_while_a_consumer_that_died_is_forgotten(
    pool: ConsumerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.start_workers(burst=False)
    pool.kill()
    [consumer] = pool.worker_dict.values()
    monkeypatch.setattr(consumer.process, "is_alive", lambda: pool.handle_dead_worker(consumer))

    assert not any(state.alive for state in pool.states())
    assert pool.states() == []


def test_a_probe_is_answered_when_a_consumer_was_killed_while_it_showed_progress(
    pool: ConsumerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows = multiprocessing.get_context("fork").Event()

    def show_progress(_name: str, _shard: str, progress: Any, _parent: int) -> None:
        with getattr(progress, "get_lock", contextlib.nullcontext)():  # where there is one
            shows.set()
            time.sleep(600)

    monkeypatch.setattr("langfuse_ingest.consumers.pool.run_consumer", show_progress)
    pool.start_workers(burst=False)
    assert shows.wait(20)
    pool.kill()

    found: list[ConsumerState] = []
    probe = threading.Thread(target=lambda: found.extend(pool.states()), daemon=True)
    probe.start()
    probe.join(20)
    assert [state.alive for state in found] == [False]


def test_a_consumer_that_is_told_to_stop_while_it_starts_does_so(pool: ConsumerPool) -> None:
    # As the supervisor's handler, which a new process has until RQ sets its own.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        pool.start_workers(burst=False)
        pool.stop_workers()
        [consumer] = pool.worker_dict.values()
        consumer.process.join(20)
        assert not consumer.process.is_alive()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_consumer_that_dies_at_its_start_is_started_again_later_and_later(
    pool: ConsumerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RedisError("there is no room")

    monkeypatch.setattr("langfuse_ingest.consumers.pool.run_consumer", fail)
    monkeypatch.setattr("langfuse_ingest.consumers.restart._FIRST_S", 0.2)
    starts: list[float] = []
    start_worker = pool.start_worker

    def start(*args: Any, **kwargs: Any) -> None:
        starts.append(time.monotonic())
        start_worker(*args, **kwargs)

    monkeypatch.setattr(pool, "start_worker", start)
    wait_for(lambda: pool.check_workers() or len(starts) == 5, lambda: str(starts))

    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert [wait >= least for wait, least in zip(waits[1:], (0.2, 0.4, 0.8), strict=True)] == [True] * 3
    assert pool.died_of == "there is no room"


def test_delays_between_starts_grow_to_some_seconds_and_begin_anew_after_a_while() -> None:
    delay, now, delays = RestartDelay(), 100.0, list[float]()
    for lived_s in [0, 0, 0, 0, 0, 0, 60, 0, 0]:
        delay.died(lived_s, now)
        delay.died(lived_s, now)  # two at once count as one
        delays.append(delay.due - now)
        now = delay.due
        assert delay.is_over(now)
    assert delays == [0, 1, 2, 4, 8, 8, 0, 0, 1]
