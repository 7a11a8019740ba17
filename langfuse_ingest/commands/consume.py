"""`langfuse-worker consume`."""

import os
import sys
from typing import Annotated

import typer

from langfuse_ingest.commands.preconditions import ingestion_settings
from langfuse_ingest.consumers.supervisor import Supervisor
from langfuse_ingest.queues import UnknownQueueError, decide_queues, queue, registered_queues
from langfuse_worker.console import fail
from langfuse_worker.redis import running_redis
from langfuse_worker.role import describe


def consume(
    only: Annotated[
        list[str] | None,
        typer.Option("--queue", help="Only this queue; repeatable. Default: all that run here."),
    ] = None,
) -> None:
    """Start the consumers of the queues that run here, until SIGTERM or Ctrl-C; /healthz and /readyz beside.

    Exit code 0 after a clean stop, 1 when consumers did not stop in time, 2 when a setting is wrong.

    Example: LANGFUSE_WORKER_ROLE=ingestion langfuse-worker consume --queue ingestion-queue
    """
    config = ingestion_settings()
    # The role is the first line, before anything is opened.
    print(describe(config.worker_role, decide_queues(config.worker_role)), file=sys.stderr, flush=True)
    specs = registered_queues(config.worker_role)
    for name in only or ():
        try:
            spec = queue(name)
            if spec.name != name:
                fail(f"{name} is a shard; --queue {spec.name} consumes all of that queue's", code=2)
            if spec not in specs:
                fail(f"{name} is not consumed here; `langfuse-worker queues` says why", code=2)
        except UnknownQueueError as error:
            fail(str(error), code=2)
    chosen = [spec for spec in specs if not only or spec.name in only]
    if not chosen:
        fail("every queue is switched off by its QUEUE_CONSUMER_*_IS_ENABLED", code=2)
    with running_redis(config):
        code = Supervisor(config, chosen).run()
    # Threads of the metrics exporter must not hold up a process that is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
