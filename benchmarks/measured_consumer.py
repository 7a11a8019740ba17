"""A consumer as the pool runs it, but until its queue is empty; it prints what it took from its first job on.

Args: Redis' port, and how long it waits on an empty queue before it ends, seconds. It begins once a line
arrives on standard input.
"""

import json
import sys
import time

from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.utils import now

from langfuse_ingest.consumers.worker import ConsumerWorker
from langfuse_ingest.ingest import Outcome
from langfuse_ingest.runtime import runtime
from langfuse_worker.clickhouse import Query, QueryComment
from langfuse_worker.logs import configure_logging


class MeasuredConsumer(ConsumerWorker):
    """Notes how old each job is when its rows are visible, seconds."""

    ages_s: list[float]

    def _finish(
        self,
        jobs: dict[Job, Execution],
        queue: Queue,
        outcome: Outcome,
        failures: dict[Job, BaseException],
    ) -> None:
        super()._finish(jobs, queue, outcome, failures)
        if failures or outcome.refused:
            raise RuntimeError(f"{len(failures)} jobs failed, {len(outcome.refused)} rows were refused")
        self.ages_s += [(now() - job.enqueued_at).total_seconds() for job in jobs if job.enqueued_at]


def main(port: str, max_idle_s: str) -> None:
    """Work the queue off."""
    configure_logging("error")
    redis = Redis(port=int(port))
    runtime().clickhouse.rows(Query("SELECT 1", QueryComment("warm")))
    worker = MeasuredConsumer([Queue("ingestion-queue", connection=redis)], connection=redis)
    worker.ages_s = []
    print("ready", flush=True)
    sys.stdin.readline()
    before, started = time.process_time(), time.monotonic()
    idle_s = int(max_idle_s)
    worker.work(burst=idle_s == 0, max_idle_time=idle_s or None, logging_level="ERROR")
    cost = {"wall": time.monotonic() - started, "cpu": time.process_time() - before, "ages": worker.ages_s}
    print(json.dumps(cost), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
