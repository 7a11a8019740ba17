"""Whether Dagster is set up to run exports on time and side by side."""

from collections.abc import Callable, Iterator, Mapping

from langfuse_export.doctor.subject import Subject
from langfuse_export.instance import open_instance
from langfuse_worker.dagster_home import DagsterStorageError
from langfuse_worker.doctor import Finding, ok, problem, warning
from langfuse_worker.settings import SettingsError

STORAGE = "dagster: storage"
_COPY = "copy `concurrency` from the product's dagster.yaml"


def check_storage(subject: Subject) -> Iterator[Finding]:
    """Where runs and windows are remembered."""
    try:
        with open_instance() as instance:
            kind = type(instance.event_log_storage).__name__
            home = instance.root_directory
    except (SettingsError, DagsterStorageError) as error:
        yield problem(
            STORAGE, str(error), "start its database, or correct DAGSTER_HOME, its rights or its disk"
        )
        return
    if "Sqlite" not in kind:
        yield ok(STORAGE, kind)
    elif subject.settings.embedded:
        yield ok(STORAGE, f"SQLite in {home}, as fits an embedded deployment")
    else:
        text = f"SQLite in {home}: a file for every run, and one machine only"
        yield warning(STORAGE, text, "use Postgres, see docs/deployment.md, Dagster's instance")


def check_concurrency(subject: Subject) -> Iterator[Finding]:
    """Pools, the run queue and the share of backfills."""
    what = "dagster: concurrency"
    with open_instance() as instance:
        config = instance.get_concurrency_config()
    pools, queue = config.pool_config, config.run_queue_config
    if queue is None:
        yield problem(what, "runs are not queued: every window starts at once", _COPY)
        return
    most = queue.max_concurrent_runs
    backfills = [
        limit["limit"]
        for limit in queue.tag_concurrency_limits or ()
        if limit.get("key") == "dagster/backfill" and "value" not in limit
    ]
    wrong: list[str] = []
    if pools.default_pool_limit is None or 0 <= most <= pools.default_pool_limit:
        wrong.append(f"pools.default_limit is {pools.default_pool_limit}: one project may take every slot")
    if getattr(pools.pool_granularity, "value", None) != "run":
        wrong.append("pools.granularity is not run: a waiting project would hold a slot")
    if most < 0:
        wrong.append("max_concurrent_runs is unlimited: a backfill may start thousands of processes")
    elif not backfills or min(backfills) >= most:
        wrong.append(f"backfills may take all {most} slots: schedules would wait for them")
    for text in wrong:
        yield warning(what, text, _COPY)
    if not wrong:
        yield ok(
            what,
            f"{most} runs at once, {min(backfills)} of them backfills, {pools.default_pool_limit} a project",
        )


def check_daemon(subject: Subject) -> Iterator[Finding]:
    """Whether somebody evaluates schedules and starts runs."""
    what = "dagster: daemon"
    with open_instance() as instance:
        statuses = instance.get_daemon_statuses()
        stopped = [
            state.instigator_name
            for state in instance.all_instigator_state()
            if state.instigator_type.name == "SCHEDULE" and state.status.name == "STOPPED"
        ]
    down = sorted(name for name, status in statuses.items() if status.required and not status.healthy)
    if down:
        text = "not running" if len(down) == len(statuses) else f"no heartbeat of {', '.join(down).lower()}"
        yield warning(
            what, text, "run `langfuse-worker start`, or `dagster-daemon run`: nothing is scheduled"
        )
    else:
        yield ok(what, "alive")
    for name in stopped:
        yield warning(
            f"dagster: schedule {name}", "somebody has stopped it", "start it in the UI, Automation"
        )


# Of what can be read of an instance whose storage answers.
CHECKS: Mapping[str, Callable[[Subject], Iterator[Finding]]] = {
    "dagster: concurrency": check_concurrency,
    "dagster: daemon": check_daemon,
}
