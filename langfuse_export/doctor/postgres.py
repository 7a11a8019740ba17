"""Whether Langfuse's Postgres can be told how far exports are, and who else is set up to export."""

from collections.abc import Iterator
from datetime import UTC, datetime

from psycopg.sql import SQL

from langfuse_export.catalog.postgres import INTEGRATIONS
from langfuse_export.doctor.subject import Subject
from langfuse_export.notify.owners import GRANT, SENT_COLUMN, Owners
from langfuse_export.prices import read_prices
from langfuse_export.write_back import unwritable_columns
from langfuse_worker.doctor import Finding, ok, problem, warning
from langfuse_worker.doctor.clock import compare_clocks
from langfuse_worker.postgres import Database, DatabaseError
from langfuse_worker.settings.health import NOTIFICATION_PREFIX

POSTGRES = "postgres"
_RIGHTS = "docs/moving.md, Rights"
# Dagster's daemon and webserver, a sensor and the runs that go on at once, with room for Langfuse itself.
_SPARE_CONNECTIONS = 10

_ENABLED = SQL("SELECT project_id FROM {integrations} WHERE enabled")
_STATE = SQL(
    "SELECT clock_timestamp() AS now, current_setting('max_connections')::int AS most, "
    "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used"
)


def check_postgres(database: Database) -> Iterator[Finding]:
    """Whether it answers, its clock, its free connections, and whether progress can be written."""
    try:
        with database.transaction() as cursor:
            before = datetime.now(UTC)
            state = cursor.execute(_STATE).fetchone()
            ours = before + (datetime.now(UTC) - before) / 2
        missing = unwritable_columns(database)
    except DatabaseError as error:
        yield problem(POSTGRES, str(error), "check DATABASE_URL, the network and the grants of its user")
        return
    assert state is not None
    yield ok(POSTGRES, f"answers at {database.shown}")
    yield compare_clocks("clock of postgres", state["now"], ours)
    free = state["most"] - state["used"]
    text = f"{state['used']} of {state['most']} connections are in use"
    if free < _SPARE_CONNECTIONS:
        remedy = "raise max_connections, or lower Langfuse's connection_limit: a run opens one at a time"
        yield warning("postgres: connections", text, remedy)
    else:
        yield ok("postgres: connections", text)
    if missing:
        text = f"may not write {', '.join(missing)}: Langfuse's page would not show progress and errors"
        yield problem("postgres: write-back", text, f"GRANT UPDATE on these columns ({_RIGHTS})")
    else:
        yield ok("postgres: write-back", "progress and errors can be written")


def check_rows(subject: Subject) -> Iterator[Finding]:
    """Whether every export that is set up in Langfuse can be one."""
    what, rejections = "postgres: rows", subject.catalog.rejections
    for rejection in rejections:
        text = f"{rejection.project_id} is left out: {rejection.error}"
        remedy = "correct it in Langfuse, the project's settings; for secrets, set its ENCRYPTION_KEY here"
        yield problem(what, text, remedy)
    if not rejections:
        yield ok(what, "every project that is set up in Langfuse can be exported")


def check_owners(owners: Owners) -> Iterator[Finding]:
    """Whether owners of projects can be found and mailed once; only where they get mail."""
    what = "postgres: owners"
    unreadable = owners.unreadable_columns()
    unwritable = unwritable_columns(owners.database, (SENT_COLUMN,))
    if unreadable:
        text = f"may not read {', '.join(unreadable)}: owners of projects get no mail when exports fail"
        remedy = f"{GRANT} ({_RIGHTS}), or {NOTIFICATION_PREFIX}EMAIL_OWNERS=false"
        yield warning(what, text, remedy)
    elif unwritable:
        text = f"may not write {SENT_COLUMN}: Langfuse and this product may mail the same failure"
        yield warning(what, text, f"GRANT UPDATE ({SENT_COLUMN}) on {INTEGRATIONS} ({_RIGHTS})")
    else:
        yield ok(what, "owners of projects can be read, and are mailed once a cooldown")


def check_set_up_twice(subject: Subject, database: Database) -> Iterator[Finding]:
    """Projects that exports.yaml exports while their export is enabled in Langfuse as well."""
    what = "postgres: set up twice"
    statement = _ENABLED.format(integrations=database.table(INTEGRATIONS))
    with database.transaction() as cursor:
        enabled = {row["project_id"] for row in cursor.execute(statement)}
    both = sorted(
        project.project_id
        for project in subject.catalog.projects
        if project.enabled and not project.in_postgres and project.project_id in enabled
    )
    for project_id in both:
        text = f"{project_id} is exported as exports.yaml says, and its export is enabled in Langfuse, too"
        yield warning(what, text, "switch it off in Langfuse's settings, or take it out of exports.yaml")
    if not both:
        yield ok(what, "no project of exports.yaml is enabled in Langfuse as well")


def check_prices(subject: Subject, database: Database) -> Iterator[Finding]:
    """Whether prices of models can be read, where projects export them."""
    what = "postgres: prices"
    priced = [
        project.project_id
        for project in subject.catalog.projects
        if project.enabled and any(table.has_prices for table in project.tables)
    ]
    if not priced:
        yield ok(what, "no project exports them")
        return
    try:
        prices = read_prices(database, priced[0])
    except DatabaseError as error:
        yield problem(what, str(error), f"GRANT SELECT on models, pricing_tiers and prices ({_RIGHTS})")
    else:
        yield ok(what, f"can be read: {len(prices.models)} models of {priced[0]} have some")
