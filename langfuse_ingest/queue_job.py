"""RQ's job, with a retry that happens whole or not at all."""

from datetime import timedelta

from redis.client import Pipeline
from rq import Queue
from rq.job import Job
from rq.utils import now


class QueueJob(Job):
    """A job of the queues."""

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Put the job back for its next attempt, when the pipeline is executed.

        RQ's own writes the status at once. If the process or Redis dies before the rest, the job is in work
        by its registry and not by its status, and RQ's cleanup drops it as one that is done.
        """
        delay_s = self.get_retry_interval()
        if not delay_s:
            super().retry(queue, pipeline)
            return
        assert self.retries_left
        self.retries_left -= 1
        queue.schedule_job(self, now() + timedelta(seconds=delay_s), pipeline=pipeline)
