"""What `langfuse-worker doctor` looks at where exports run."""

from collections.abc import Sequence
from functools import partial

from langfuse_export.doctor import dagster, destinations, isolation, langfuse, postgres, server_mode, tables
from langfuse_export.doctor.subject import Subject
from langfuse_export.notify.owner_mail import owner_mail
from langfuse_worker.doctor import Check
from langfuse_worker.doctor.clickhouse import check_clock, check_connection
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings

CLICKHOUSE = "clickhouse"
CATALOG = "catalog"


def export_checks(settings: Settings) -> Sequence[Check]:
    """The checks of a deployment that exports; none for other roles."""
    if not settings.worker_role.runs_export:
        return ()
    subject = Subject(settings)
    return [
        Check(CLICKHOUSE, partial(check_connection, CLICKHOUSE, subject.connect, settings.export_source_url)),
        Check(
            "clock of clickhouse", partial(check_clock, "clock of clickhouse", subject.connect), (CLICKHOUSE,)
        ),
        *_isolation_checks(subject),
        Check(CATALOG, partial(tables.check_catalog, subject)),
        Check("projects", partial(tables.check_projects, subject), (CLICKHOUSE, CATALOG), timeout_s=60),
        Check("tables", partial(tables.check_tables, subject), (CLICKHOUSE, CATALOG), timeout_s=60),
        Check(
            "langfuse", partial(langfuse.check_other_exports, subject), (CLICKHOUSE, CATALOG), timeout_s=60
        ),
        *_postgres_checks(subject),
        Check(
            "server mode",
            partial(server_mode.check_server_mode, subject),
            (CLICKHOUSE, CATALOG),
            timeout_s=600,
        ),
        Check("destinations", partial(destinations.check_destinations, subject), (CATALOG,), timeout_s=600),
        Check(dagster.STORAGE, partial(dagster.check_storage, subject)),
        *(Check(name, partial(run, subject), (dagster.STORAGE,)) for name, run in dagster.CHECKS.items()),
    ]


def _isolation_checks(subject: Subject) -> list[Check]:
    if subject.settings.embedded:  # which has one user
        return []
    return [Check(name, partial(run, subject), (CLICKHOUSE,)) for name, run in isolation.CHECKS.items()]


def _postgres_checks(subject: Subject) -> list[Check]:
    if subject.settings.database_url is None:
        return []
    database = Database(subject.settings.database_url)
    name = postgres.POSTGRES
    mail, what = owner_mail(subject.settings), f"{name}: owners"
    owners = [Check(what, partial(postgres.check_owners, mail.owners), (name,))] if mail else []
    return [
        Check(name, partial(postgres.check_postgres, database)),
        Check(f"{name}: rows", partial(postgres.check_rows, subject), (CATALOG,)),
        *owners,
        Check(f"{name}: set up twice", partial(postgres.check_set_up_twice, subject, database), (CATALOG,)),
        Check(f"{name}: prices", partial(postgres.check_prices, subject, database), (CATALOG,)),
    ]
