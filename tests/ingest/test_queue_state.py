"""No job is missed by the figures, and none is lost, wherever its consumer is killed."""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any

import pytest
from redis import ConnectionPool, Redis
from redis.connection import Connection

from langfuse_ingest.consumers.recovery import Recovery
from langfuse_ingest.dead_letters import dead_letters, replay
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queue_state import queue_states
from langfuse_ingest.queues import queue, queues
from tests.ingest.deployment import Deployment, Killed, work_off
from tests.ingest.sessions import trace
from tests.servers.clickhouse_http import Fault
from tests.waiting import wait_for

QUEUE = "ingestion-queue"
# Threads and destructors of what is `killed` in this process go on, and end as it did.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def put_in(deployment: Deployment) -> None:
    """Put one job in."""
    deployment.accept([trace("t")])


@pytest.mark.parametrize("start", range(4))
def test_a_job_that_moves_on_while_the_figures_are_read_is_in_one_of_them(
    deployment: Deployment, start: int
) -> None:
    put_in(deployment)
    redis, of_rq = deployment.redis.client, deployment.rq_queue(QUEUE)
    [job_id] = of_rq.job_ids
    places = [
        of_rq.key,
        of_rq.intermediate_queue_key,
        of_rq.started_job_registry.key,
        of_rq.scheduled_job_registry.key,
    ]
    steps = islice(cycle(places), start, None)

    def move_on() -> None:
        place = next(steps)
        with redis.pipeline() as pipeline:
            pipeline.delete(*places)
            if place in (of_rq.key, of_rq.intermediate_queue_key):
                pipeline.rpush(place, job_id)
            else:
                pipeline.zadd(place, {job_id: 1})
            pipeline.execute()

    class MovesOn(Connection):
        """Lets the job move on whenever an answer has come."""

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            answer = super().read_response(*args, **kwargs)
            move_on()
            return answer

    move_on()
    states = queue_states(
        Redis(connection_pool=ConnectionPool(MovesOn, port=deployment.redis.port)), queues()
    )

    assert sum(state.waiting + state.active + state.scheduled for state in states) == 1


def consume(redis: Redis) -> None:
    """Work off what waits, as a consumer does."""
    work_off(QUEUE, redis)


def recover(redis: Redis) -> None:
    """Look for lost jobs and due retries, as the supervisor does."""
    Recovery(redis, [QUEUE], 2).tick()


def replay_all(redis: Redis) -> None:
    """Put every dead letter back."""
    for letter in dead_letters(redis):
        replay(redis, letter)


def killed(deployment: Deployment, work: Callable[[Redis], object], before: str) -> None:
    """Do work whose process ends before it sends a transaction with text of this pattern."""
    dead = threading.Event()

    class Dies(Connection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            sent = b"".join(command).decode(errors="replace")
            if dead.is_set() or ("EXEC" in sent and re.search(before, sent, re.DOTALL)):
                dead.set()
                raise Killed
            super().send_packed_command(command, check_health)

    pool = ConnectionPool(Dies, port=deployment.redis.port)
    with pytest.raises(Killed):
        work(Redis(connection_pool=pool))
    pool.disconnect()  # the thread that listens for RQ's commands, too


def interrupted(deployment: Deployment, by: Callable[[], object]) -> None:
    """Work off what waits; when it is stored and not yet done, something else happens."""
    happened = threading.Event()

    class Waits(Connection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if b"successful_job_count" in b"".join(command) and not happened.is_set():
                happened.set()
                by()
            super().send_packed_command(command, check_health)

    consume(Redis(connection_pool=ConnectionPool(Waits, port=deployment.redis.port)))
    assert happened.is_set()


@pytest.fixture
def refused(poison: Deployment) -> Deployment:
    """A deployment that has refused the only trace."""
    refuse(poison)
    return poison


def refuse(poison: Deployment) -> None:
    """Let an event of the trace be refused."""
    poison.accept([trace("t", name="poison")])
    work_off(QUEUE, poison.redis.client)


def leave_taken(deployment: Deployment) -> None:
    """Killed when the job is no longer in the queue and not yet noted as started."""
    killed(deployment, consume, before="rq:wip:")


def leave_stored(deployment: Deployment) -> None:
    """Killed when the rows are stored and the job is not yet done."""
    killed(deployment, consume, before="successful_job_count")


def leave_failed(deployment: Deployment) -> None:
    """Killed when the job has failed and is not yet put back for its next attempt."""
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1))
    killed(deployment, consume, before="rq:scheduled:")
    deployment.clickhouse.break_next()


def leave_half_recovered(deployment: Deployment) -> None:
    """Killed, and so was the process that was about to take the job up again."""
    leave_stored(deployment)
    deployment.expire_leases()
    killed(deployment, recover, before="rq:scheduled:")


def leave_half_queued_again(deployment: Deployment) -> None:
    """Killed when the job's next attempt is due and not yet in the queue."""
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1))
    deployment.work(QUEUE)
    deployment.clickhouse.break_next()
    scheduled = deployment.rq_queue(QUEUE).scheduled_job_registry
    for job_id in scheduled.get_job_ids():
        deployment.redis.client.zadd(scheduled.key, {job_id: 1})
    killed(deployment, recover, before="rq:queue:")


@pytest.mark.parametrize(
    "leave", [leave_taken, leave_stored, leave_failed, leave_half_recovered, leave_half_queued_again]
)
def test_a_job_is_counted_and_taken_up_again_wherever_its_consumer_was_killed(
    deployment: Deployment, leave: Callable[[Deployment], None]
) -> None:
    put_in(deployment)

    leave(deployment)

    assert deployment.backlog == 1
    deployment.clickhouse.empty()
    deployment.redis.client.delete(f"rq:scheduler-lock:{QUEUE}")  # of a killed process: expires in a minute
    with deployment.consumers("--queue", QUEUE) as consumers:
        wait_for(lambda: deployment.ids("traces") == ["t"], consumers.log.read_text)
        deployment.wait_until_empty()
    assert deployment.letters == []


def test_a_job_that_kills_every_consumer_is_the_only_dead_letter(deployment: Deployment) -> None:
    for n in range(40):
        deployment.accept([trace(f"t{n}")])
    killer = deployment.rq_queue(QUEUE).job_ids[20]

    deaths = 0
    while any(job.id == killer for job in deployment.waiting(QUEUE)):
        killed(deployment, consume, before=f"{killer}.*successful_job_count")
        deaths += 1
        deployment.expire_leases()
        deployment.redis.client.delete("langfuse:ingestion:recovery")
        deployment.make_retries_due()
        deployment.make_retries_due()
        for job in deployment.waiting(QUEUE):
            assert job.id == killer or job.retries_left == 5
    deployment.work(QUEUE)

    assert deaths == 8  # with all, with some, and six attempts of its own
    assert [letter.id for letter in deployment.letters] == [killer]
    assert "AbandonedJobError" in deployment.letters[0].reason
    assert len(deployment.ids("traces")) == 40
    assert deployment.backlog == 0


def test_a_dead_letter_stays_one_if_its_replay_is_killed(deployment: Deployment) -> None:
    enqueue(deployment.redis.client, queue(QUEUE), [NewJob({"segment": "p1/missing"})])
    deployment.work(QUEUE)
    assert len(deployment.letters) == 1

    killed(deployment, replay_all, before="rq:queue:")

    assert (deployment.backlog, len(deployment.letters)) == (0, 1)


def test_a_replayed_dead_letter_is_counted_once_if_its_consumer_is_killed(refused: Deployment) -> None:
    [before] = refused.letters
    replay_all(refused.redis.client)

    killed(refused, consume, before="successful_job_count")

    assert (refused.backlog, refused.failed, refused.letters) == (1, 0, [])
    refused.expire_leases()
    refused.make_retries_due()
    refused.make_retries_due()
    refused.work(QUEUE)
    assert (refused.backlog, refused.failed) == (0, 1)
    assert [letter.id for letter in refused.letters] == [before.id]


def test_a_dead_letter_that_is_refused_while_its_replay_waits_is_gone_once_stored(
    refused: Deployment,
) -> None:
    redis = refused.redis.client
    [job_id] = [letter.id for letter in refused.letters]
    replay_all(redis)
    redis.lmove(refused.rq_queue(QUEUE).key, "aside", "LEFT", "RIGHT")
    refuse(refused)
    assert refused.failed == 1
    refused.take_poison()

    redis.lmove("aside", refused.rq_queue(QUEUE).key, "LEFT", "RIGHT")
    refused.work(QUEUE)

    assert refused.ids("traces") == ["t"]
    assert (refused.backlog, refused.failed, refused.letters) == (0, 0, [])
    assert redis.keys(f"*{job_id}*") == []


def test_a_dead_letter_that_is_refused_while_its_replay_is_stored_stays(refused: Deployment) -> None:
    replay_all(refused.redis.client)
    refused.take_poison()

    def refuse_another() -> None:
        refused.refuse_poison()
        refuse(refused)

    interrupted(refused, by=refuse_another)

    assert (refused.backlog, refused.failed, len(refused.letters)) == (0, 1, 1)
    refused.take_poison()
    replay_all(refused.redis.client)
    refused.work(QUEUE)
    assert (refused.backlog, refused.failed, refused.letters) == (0, 0, [])


def test_a_job_that_was_queued_twice_and_is_done_does_not_come_back_for_ever(deployment: Deployment) -> None:
    put_in(deployment)
    of_rq = deployment.rq_queue(QUEUE)
    deployment.redis.client.rpush(of_rq.key, *of_rq.job_ids)

    with deployment.consumers("--queue", QUEUE) as consumers:
        wait_for(lambda: deployment.ids("traces") == ["t"], consumers.log.read_text)
        deployment.wait_until_empty()


def test_a_job_on_its_way_to_a_consumer_is_not_failed_by_another_that_starts(deployment: Deployment) -> None:
    put_in(deployment)
    of_rq = deployment.rq_queue(QUEUE)
    [job] = of_rq.jobs
    job.retries_left = 0  # so that nobody would try it again
    job.save()
    # It was lost on its way before, and RQ has seen that.
    earlier = datetime.now(UTC) - timedelta(minutes=5)
    deployment.redis.client.set(of_rq.intermediate_queue.get_first_seen_key(job.id), earlier.timestamp())
    deployment.redis.client.lmove(of_rq.key, of_rq.intermediate_queue_key, "LEFT", "RIGHT")

    deployment.work(QUEUE)

    assert (deployment.letters, deployment.backlog) == ([], 1)
