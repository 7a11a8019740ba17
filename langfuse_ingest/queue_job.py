"""RQ's job, with a retry that happens whole or not at all, and its end."""

from datetime import timedelta

from redis.client import Pipeline
from rq import Queue
from rq.job import Job
from rq.results import Result
from rq.utils import now

# A replayed dead letter keeps its id, and becomes one again if another consumer refuses rows of its entity.
# If that was before the job was started, those events are stored as well; if not, the letter has to stay.
_REMOVE_DONE = """
if redis.call('HGET', KEYS[1], 'status') ~= 'failed' then
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('ZREM', KEYS[3], ARGV[1])
end
"""


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


def remove_done(job: Job, pipeline: Pipeline) -> None:
    """Remove a job that is done, with the errors of earlier attempts, when the pipeline is executed."""
    keys = (job.key, Result.get_key(job.id), job.failed_job_registry.key)
    pipeline.eval(_REMOVE_DONE, len(keys), *keys, job.id)
