"""Whether ClickHouse or the event log's store is down: jobs then wait without using up attempts."""

import structlog

from langfuse_ingest.runtime import runtime
from langfuse_ingest.writer import is_transient
from langfuse_worker.blobstore import ObjectNotFoundError, StoreError
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment

log = structlog.get_logger()


def casts_doubt(error: BaseException) -> bool:
    """Whether other jobs may fail alike: ClickHouse or the event log's store is down, or that refuses."""
    if isinstance(error, StoreError):
        return not isinstance(error, ObjectNotFoundError)
    return is_transient(error)


def both_answer(queue: str) -> bool:
    """Whether ClickHouse and the event log are there; which is not, is logged for the queue."""
    try:
        runtime().clickhouse.rows(Query("SELECT 1", QueryComment(purpose="ingest-ping")))
        runtime().event_log.ping()
    except (ClickHouseError, StoreError) as error:
        of_clickhouse = isinstance(error, ClickHouseError)
        event = "clickhouse_unavailable" if of_clickhouse else "event_log_unavailable"
        log.warning(event, queue=queue, error=str(error))
        return False
    return True
