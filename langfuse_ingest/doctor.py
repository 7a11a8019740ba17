"""What `langfuse-worker doctor` looks at where events are ingested."""

from collections.abc import Iterator, Sequence
from functools import partial

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from langfuse_ingest.event_log import event_log_store
from langfuse_ingest.event_log_index import TABLE as INDEX
from langfuse_ingest.events import Entity
from langfuse_ingest.file_log import TABLE as FILE_LOG
from langfuse_ingest.tables import targets
from langfuse_worker.clickhouse import ClickHouse, connect_for_ingestion
from langfuse_worker.doctor import Check, Finding, ok, problem, warning
from langfuse_worker.doctor.clickhouse import ask, check_clock, check_connection, connected, row_policy
from langfuse_worker.doctor.store import try_store
from langfuse_worker.redis import running_redis, shown_redis
from langfuse_worker.settings import Settings

_CREATION = "docs/deployment.md, The index of the event log"
_CLICKHOUSE = "clickhouse of consumers"


def ingestion_checks(settings: Settings) -> Sequence[Check]:
    """The checks of a deployment that ingests; none for other roles."""
    if not settings.worker_role.runs_ingestion:
        return ()
    connect = partial(connect_for_ingestion, settings)
    clock = f"clock of {_CLICKHOUSE}"
    return [
        Check("redis", partial(check_redis, settings)),
        Check(_CLICKHOUSE, partial(check_connection, _CLICKHOUSE, connect, settings.ingestion_url)),
        Check(clock, partial(check_clock, clock, connect), (_CLICKHOUSE,)),
        Check("tables of consumers", partial(check_tables, settings), (_CLICKHOUSE,)),
        Check("event log", lambda: try_store("event log", event_log_store(settings)), timeout_s=60),
    ]


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Whether Redis answers and keeps what it has accepted."""
    try:
        with running_redis(settings) as redis:
            version = redis.info("server")["redis_version"]
            yield ok("redis", f"{shown_redis(settings)} answers, version {version}")
            yield _eviction(redis)
            yield _persistence(redis)
    except RedisError as error:
        remedy = "check REDIS_CONNECTION_STRING or REDIS_HOST, REDIS_AUTH, REDIS_TLS_ENABLED and the network"
        yield problem("redis", f"{shown_redis(settings)}: {error}", remedy)


def _eviction(redis: Redis) -> Finding:
    what = "redis: eviction"
    policy = str(redis.info("memory").get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return ok(what, "maxmemory-policy is noeviction")
    text = f"maxmemory-policy is {policy}: when memory runs out, waiting jobs are thrown away"
    return problem(what, text, "set maxmemory-policy noeviction")


def _persistence(redis: Redis) -> Finding:
    what = "redis: persistence"
    remedy = "set appendonly yes; what is lost is in the event log: run replay_event_log"
    if redis.info("persistence").get("aof_enabled"):
        return ok(what, "jobs are in an append-only file")
    try:
        saves = redis.config_get("save").get("save")
    except ResponseError:  # managed services do not say
        return warning(what, "there is no append-only file: a restart may lose jobs", remedy)
    if saves:
        return warning(what, f"snapshots only ({saves}): a crash loses the jobs since the last", remedy)
    return problem(what, "nothing is written to disk: a restart loses every job", remedy)


def check_tables(settings: Settings) -> Iterator[Finding]:
    """Whether the tables are there that the write mode writes, and the index is, or can be made."""
    written = (target.table for entity in Entity for target in targets(entity, settings.write_mode))
    wanted = [*dict.fromkeys(written), FILE_LOG]
    with connected(partial(connect_for_ingestion, settings)) as clickhouse:
        sql = "SELECT name FROM system.tables WHERE database = currentDatabase()"
        found = {row[0] for row in ask(clickhouse, sql)}
        yield _index(clickhouse, is_there=INDEX in found)
        yield from _hidden_rows(clickhouse, sorted(found & {*wanted, INDEX}))
    missing = sorted(set(wanted) - found)
    what, mode = "tables of consumers", f"LANGFUSE_MIGRATION_V4_WRITE_MODE={settings.write_mode}"
    if missing:
        text = f"{settings.clickhouse_db} lacks {', '.join(missing)}, or this user has no right to them"
        yield problem(what, text, f"migrate Langfuse, grant them, or change {mode}")
    else:
        yield ok(what, f"{', '.join(wanted)} are there for {mode}")


def _hidden_rows(clickhouse: ClickHouse, tables: Sequence[str]) -> Iterator[Finding]:
    for table in tables:
        if hidden := row_policy(clickhouse, table, "project_id"):
            text = f"a row policy hides rows of {table}, all but those with {hidden}: merges do without them"
            remedy = "CREATE ROW POLICY ... USING 1 TO the user of consumers"
            yield problem("tables of consumers", text, remedy)


def _index(clickhouse: ClickHouse, *, is_there: bool) -> Finding:
    what = "index of the event log"
    if is_there:
        return ok(what, f"{INDEX} is there")
    [(granted,)] = ask(clickhouse, f"CHECK GRANT CREATE TABLE ON {INDEX}")
    if granted:
        return ok(what, f"consumers create {INDEX} with their first batch")
    text = f"there is no {INDEX}, and this user may not create it"
    return problem(what, text, f"grant CREATE TABLE on it, or create it ({_CREATION})")
