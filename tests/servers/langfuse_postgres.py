"""Langfuse's database in the tests' Postgres, and rows as Langfuse writes them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.rows import dict_row

from tests.servers.postgres import PostgresServer
from tests.servers.s3 import REGION

ENCRYPTION_KEY = "3f" * 32
_DDL = Path(__file__).with_suffix(".sql")
_DATABASE = "langfuse"
_ROLE = "langfuse_export"


def encrypted(secret: str, key: str = ENCRYPTION_KEY) -> str:
    """A secret as Langfuse stores it."""
    iv = os.urandom(12)
    sealed = AESGCM(bytes.fromhex(key)).encrypt(iv, secret.encode(), None)
    return f"{iv.hex()}:{sealed[:-16].hex()}:{sealed[-16:].hex()}"


@dataclass
class LangfusePostgres:
    """A database with the tables that the export reads.

    Attributes:
        server: where it is.
    """

    server: PostgresServer

    def create(self) -> None:
        """Make it, and the role of the export with the rights that docs/moving.md asks for."""
        self.server.create_database(_DATABASE)
        self.execute(_DDL.read_text().replace("${PASSWORD}", self.server.password))

    @property
    def url(self) -> str:
        """DATABASE_URL of the export, with Prisma's own parameters."""
        return f"{self._url(_ROLE)}?schema=public&connection_limit=5&pgbouncer=true&sslmode=prefer"

    @property
    def environment_of_a_worker(self) -> dict[str, str]:
        """The variables of a worker that exports what its projects have set up."""
        return {"DATABASE_URL": self.url, "ENCRYPTION_KEY": ENCRYPTION_KEY}

    def execute(
        self, sql: str, parameters: dict[str, Any] | None = None, database: str = _DATABASE
    ) -> list[dict[str, Any]]:
        """Run SQL as Langfuse; the rows, if there are any."""
        with (
            psycopg.connect(self._url(self.server.user, database), autocommit=True) as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            cursor.execute(sql, parameters)  # pyright: ignore[reportArgumentType]
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Remove every organization, project and user."""
        self.execute("TRUNCATE organizations, users CASCADE")

    def add(self, project: str, org: str = "org", **columns: Any) -> None:
        """A project with a blob storage export, hourly to `s3://exports/`, as Langfuse's page saves it."""
        self._add_project(project, org)
        row = {
            "project_id": project,
            "type": "S3_COMPATIBLE",
            "bucket_name": "exports",
            "prefix": "",
            "access_key_id": "key",
            "secret_access_key": encrypted("secret"),
            "region": REGION,
            "force_path_style": True,
            "enabled": True,
            "export_frequency": "hourly",
            "file_type": "PARQUET",
            "export_source": "EVENTS",
            **columns,
        }
        names = ", ".join(row)
        values = ", ".join(f"%({name})s" for name in row)
        self.execute(f"INSERT INTO blob_storage_integrations ({names}) VALUES ({values})", _adapted(row))

    def add_person(
        self, email: str | None, org_role: str = "NONE", org: str = "org", **project_roles: str
    ) -> None:
        """Somebody with a role in an organization, and perhaps others in some of its projects."""
        person = {"id": f"id of {email}", "email": email, "org": org, "role": org_role}
        self.execute("INSERT INTO users (id, email) VALUES (%(id)s, %(email)s)", person)
        self.execute(
            "INSERT INTO organization_memberships (id, org_id, user_id, role) "
            "VALUES (%(id)s, %(org)s, %(id)s, %(role)s)",
            person,
        )
        for project, role in project_roles.items():
            self.execute(
                "INSERT INTO project_memberships (project_id, user_id, org_membership_id, role) "
                "VALUES (%(project)s, %(id)s, %(id)s, %(role)s)",
                {**person, "project": project, "role": role},
            )

    @contextmanager
    def revoked(self, right: str) -> Iterator[None]:
        """The export's role lacks a right meanwhile, such as `SELECT (email) ON users`."""
        self.execute(f"REVOKE {right} FROM {_ROLE}")
        try:
            yield
        finally:
            self.execute(f"GRANT {right} TO {_ROLE}")

    def add_model(self, id: str, project: str | None = None, *, tier: str = "default", **prices: str) -> None:
        """A tier of prices by usage type, of a model of the project's own or of every project's.

        Without any prices, the model is there all the same. Only the tier `default` is the model's default.
        """
        if project is not None:
            self._add_project(project)
        names = {"id": id, "project": project, "tier": tier, "tier_id": f"{id}_tier_{tier}"}
        self.execute(
            "INSERT INTO models (id, project_id, model_name, match_pattern) "
            "VALUES (%(id)s, %(project)s, %(id)s, '') ON CONFLICT DO NOTHING",
            names,
        )
        self.execute(
            "INSERT INTO pricing_tiers (id, model_id, name, is_default, priority, conditions) VALUES "
            "(%(tier_id)s, %(id)s, %(tier)s, %(tier)s = 'default', "
            "(SELECT count(*) FROM pricing_tiers WHERE model_id = %(id)s), '[]')",
            names,
        )
        for kind, price in prices.items():
            self.execute(
                "INSERT INTO prices (id, model_id, project_id, pricing_tier_id, usage_type, price) VALUES "
                "(gen_random_uuid(), %(id)s, %(project)s, %(tier_id)s, %(kind)s, %(price)s)",
                {**names, "kind": kind, "price": price},
            )

    def set_price(self, model: str, kind: str, price: str) -> None:
        """Change a price in every tier of a model."""
        sql = "UPDATE prices SET price = %(price)s WHERE model_id = %(model)s AND usage_type = %(kind)s"
        self.execute(sql, {"model": model, "kind": kind, "price": price})

    def change(self, project: str, **columns: Any) -> None:
        """Change columns of a project's export."""
        changes = ", ".join(f"{name} = %({name})s" for name in columns)
        sql = f"UPDATE blob_storage_integrations SET {changes} WHERE project_id = %(project)s"
        self.execute(sql, {**_adapted(columns), "project": project})

    def row(self, project: str) -> dict[str, Any]:
        """A project's export as Postgres has it."""
        sql = "SELECT * FROM blob_storage_integrations WHERE project_id = %(project)s"
        [row] = self.execute(sql, {"project": project})
        return row

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody can connect meanwhile."""
        self.execute(f"ALTER DATABASE {_DATABASE} ALLOW_CONNECTIONS false", database="postgres")
        try:
            yield
        finally:
            self.execute(f"ALTER DATABASE {_DATABASE} ALLOW_CONNECTIONS true", database="postgres")

    def _add_project(self, project: str, org: str = "org") -> None:
        self.execute(
            "INSERT INTO organizations (id, name) VALUES (%(org)s, %(org)s) ON CONFLICT DO NOTHING",
            {"org": org},
        )
        self.execute(
            "INSERT INTO projects (id, org_id, name) VALUES (%(id)s, %(org)s, %(name)s) "
            "ON CONFLICT DO NOTHING",
            {"id": project, "org": org, "name": f"The {project}"},
        )

    def _url(self, user: str, database: str = _DATABASE) -> str:
        address = f"{self.server.host}:{self.server.port}"
        return f"postgresql://{user}:{quote(self.server.password, safe='')}@{address}/{database}"


def _adapted(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
