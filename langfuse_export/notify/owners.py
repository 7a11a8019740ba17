"""Whom Langfuse would mail: the owners and administrators of a project, from its Postgres.

Langfuse and this product may mail the same people. Who is first writes the time into
`last_failure_notification_sent_at`, and the other one stays quiet for the cooldown.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from psycopg.rows import DictRow
from psycopg.sql import SQL

from langfuse_export.catalog.postgres import INTEGRATIONS
from langfuse_worker.postgres import Database, DatabaseError, prisma_time

log = structlog.get_logger()

SENT_COLUMN = "last_failure_notification_sent_at"
# What reading the owners takes, by table.
READ_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "projects": ("id", "org_id"),
    "project_memberships": ("project_id", "user_id", "role"),
    "organization_memberships": ("org_id", "user_id", "role"),
    "users": ("id", "email"),
}
GRANT = "GRANT SELECT on " + ", ".join(f"{table} ({', '.join(c)})" for table, c in READ_COLUMNS.items())

_PEOPLE = SQL(
    "SELECT m.project_id, u.email, true AS of_project FROM {project_memberships} m "
    "JOIN {users} u ON u.id = m.user_id "
    "WHERE m.project_id = ANY(%(projects)s) AND m.role::text IN ('OWNER', 'ADMIN') "
    "UNION SELECT p.id, u.email, false FROM {projects} p "
    "JOIN {organization_memberships} m ON m.org_id = p.org_id JOIN {users} u ON u.id = m.user_id "
    "WHERE p.id = ANY(%(projects)s) AND m.role::text IN ('OWNER', 'ADMIN')"
)
_CLAIM = SQL(
    "UPDATE {integrations} SET last_failure_notification_sent_at = %(now)s "
    "WHERE project_id = ANY(%(projects)s) AND (last_failure_notification_sent_at IS NULL "
    "OR last_failure_notification_sent_at <= %(before)s) RETURNING project_id"
)
_CLEAR = SQL(
    "UPDATE {integrations} SET last_failure_notification_sent_at = NULL "
    "WHERE project_id = %(project)s AND last_failure_notification_sent_at IS NOT NULL"
)


@dataclass(frozen=True)
class Owners:
    """The owners of projects, and the one column in which failures that they know of are written."""

    database: Database

    def emails(self, project_ids: Collection[str]) -> dict[str, frozenset[str]]:
        """By project, the addresses of its OWNERs and ADMINs, else of those of its organization.

        Raises:
            DatabaseError: Postgres does not answer, or the role may not read them.
        """
        tables = {name: self.database.table(name) for name in READ_COLUMNS}
        with self.database.transaction() as cursor:
            rows = cursor.execute(_PEOPLE.format(**tables), {"projects": list(project_ids)}).fetchall()
        usable = [row for row in rows if _usable(row["email"])]
        of_organization = _by_project(row for row in usable if not row["of_project"])
        return of_organization | _by_project(row for row in usable if row["of_project"])

    def claim(self, project_ids: Collection[str], cooldown: timedelta, now: datetime) -> set[str]:
        """Those of the projects whose people nobody has mailed a failure within the cooldown; now we do.

        Raises:
            DatabaseError: Postgres does not answer, or the role may not write the column.
        """
        statement = _CLAIM.format(integrations=self.database.table(INTEGRATIONS))
        before = prisma_time(now - cooldown)
        parameters = {"projects": list(project_ids), "now": prisma_time(now), "before": before}
        with self.database.transaction() as cursor:
            return {row["project_id"] for row in cursor.execute(statement, parameters).fetchall()}

    def unreadable_columns(self) -> list[str]:
        """Columns that `emails` needs and the role may not read, as table.column. Raises DatabaseError."""
        return [
            f"{table}.{column}"
            for table, columns in READ_COLUMNS.items()
            for column in self.database.columns_without("SELECT", table, columns)
        ]


def forget_notification(database: Database, project_id: str) -> None:
    """Somebody has done something: a fresh failure is worth a mail at once. Best effort."""
    statement = _CLEAR.format(integrations=database.table(INTEGRATIONS))
    try:
        database.update(statement, {"project": project_id})
    except DatabaseError as error:
        log.warning("write_back_failed", projectId=project_id, error=str(error))


def _by_project(rows: Iterable[DictRow]) -> dict[str, frozenset[str]]:
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["project_id"], {}).setdefault(row["email"].lower(), row["email"])
    return {project: frozenset(emails.values()) for project, emails in found.items()}


def _usable(email: str | None) -> bool:
    """Whether it is one address: it comes from users, and goes into a header."""
    return bool(email) and email.count("@") == 1 and email.isprintable() and not set(email) & set(' ,;:<>"')
