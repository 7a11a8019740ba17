"""A ClickHouse server of the tests' own, started as a process."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import urllib3

from langfuse_worker.settings import Settings
from tests.servers.clickhouse_http import Fault, Request
from tests.waiting import wait_for

_ROOT = Path(__file__).parents[2]
_TABLES = ("traces", "observations", "scores", "events_full", "events_core", "dataset_run_items_rmt")
_TABLES += ("blob_storage_file_log", "event_log_index")


@dataclass
class ClickHouseServer:
    """ClickHouse over HTTP; the data outlives a restart.

    Attributes:
        directory: where it keeps its data.
        environment: variables of its process, such as TZ.
        config: a file of its `config.d`, XML.
        users: a users.xml, see `tests.servers.clickhouse_users`; without it every query may do anything.
    """

    directory: Path
    user: str = "langfuse"
    password: str = "p@ss:word/%"
    environment: dict[str, str] = field(default_factory=dict)
    users: Path | None = None
    config: str = ""
    port: int = 0
    _process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start, on the same port as before if it ran before."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.config:  # what ClickHouse merges with data.xml
            (self.directory / "data.d").mkdir(exist_ok=True)
            (self.directory / "data.d" / "config.xml").write_text(self.config)
        command = [sys.executable, "-m", "tests.servers.clickhouse_http"]
        command += ["--path", str(self.directory / "data"), "--port", str(self.port)]
        command += ["--user", self.user, "--password", self.password]
        if self.users:
            command += ["--users", str(self.users)]
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"TZ": "UTC", **self.environment},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment_of_a_worker(self) -> dict[str, str]:
        """The variables of a worker that exports from it."""
        return {
            "CLICKHOUSE_URL": self.url,
            "CLICKHOUSE_USER": self.user,
            "CLICKHOUSE_PASSWORD": self.password,
        }

    def settings(self, **environment: str) -> Settings:
        """Settings of a deployment that exports from it; keyword arguments are further variables."""
        variables: dict[str, Any] = {**self.environment_of_a_worker, **environment}
        return Settings(**variables)

    def execute(self, sql: str, settings: Mapping[str, str] | None = None) -> str:
        """Run SQL as somebody who is not the export; the answer is JSON or text."""
        fields = urlencode({"log_comment": "test", **(settings or {})})
        response = urllib3.request(
            "POST",
            f"{self.url}/?{fields}",
            body=sql.encode(),
            headers={"X-ClickHouse-User": self.user, "X-ClickHouse-Key": self.password},
            retries=False,
            timeout=600,
        )
        assert response.status == 200, response.data.decode()
        return response.data.decode()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [json.loads(line) for line in self.execute(f"{sql} FORMAT JSONEachRow").split("\n")[:-1]]

    def empty(self) -> None:
        """Remove every row and every fault."""
        self.break_next()
        for table in _TABLES:
            self.execute(f"TRUNCATE TABLE IF EXISTS {table}")

    def break_next(self, *faults: Fault) -> None:
        """Set the faults, instead of those set before."""
        body = json.dumps([asdict(fault) for fault in faults])
        assert urllib3.request("POST", f"{self.url}/_test/faults", body=body).status == 200

    @property
    def requests(self) -> list[Request]:
        """Every query that has arrived since the start."""
        answer = urllib3.request("GET", f"{self.url}/_test/requests")
        return [Request(**request) for request in answer.json()]

    def exports_in_query_log(self) -> list[dict[str, Any]]:
        """The export's queries in the engine's own log, in their order: query, settings and comment."""
        self.execute("SYSTEM FLUSH LOGS query_log")
        return self.rows(
            "SELECT query, Settings AS settings, log_comment AS comment FROM system.query_log "
            "WHERE type = 'QueryStart' AND log_comment LIKE '%langfuse-export%' AND query NOT LIKE 'SET %' "
            "ORDER BY event_time_microseconds"
        )

    def finished_queries(self, columns: str, condition: str) -> list[dict[str, Any]]:
        """What `system.query_log` has of queries that have ended well; the condition may group and order."""
        self.execute("SYSTEM FLUSH LOGS query_log")
        return self.rows(f"SELECT {columns} FROM system.query_log WHERE type = 'QueryFinish' AND {condition}")

    def cost_of_exports(self, run_id: str, table: str) -> dict[str, Any]:
        """What the queries that read a table's rows in a run cost together, and how many they were."""
        self.execute("SYSTEM FLUSH LOGS query_log")
        cpu = "ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']"
        comment = {"purpose": "export", "table": table, "run": run_id}
        conditions = [f"JSONExtractString(log_comment, '{k}') = '{v}'" for k, v in comment.items()]
        [cost] = self.rows(
            "SELECT toUInt32(count()) AS queries, toFloat64(sum(read_rows)) AS read_rows, "
            "toFloat64(sum(read_bytes)) AS read_bytes, toFloat64(max(memory_usage)) AS peak_memory, "
            f"sum({cpu}) / 1e6 AS cpu_s FROM system.query_log WHERE type != 'QueryStart' "
            f"AND query LIKE 'INSERT INTO FUNCTION%' AND {' AND '.join(conditions)}"
        )
        return cost

    def running_exports(self) -> list[str]:
        """Export queries that run now and have not been killed."""
        # A killed query stays until its blocked write into the FIFO returns.
        sql = "SELECT query FROM system.processes WHERE query LIKE 'INSERT INTO FUNCTION%' "
        sql += "AND NOT is_cancelled AND query NOT LIKE '%system.processes%'"
        return [row["query"] for row in self.rows(sql)]

    def wait_for_running_exports(self, count: int, timeout_s: float = 120) -> None:
        """Return once so many export queries run; raises TimeoutError."""
        wait_for(
            lambda: len(self.running_exports()) == count,
            lambda: f"other queries run than {count}: {self.running_exports()}",
            timeout_s,
        )


def cores_of(server: ClickHouseServer) -> int:
    """How many threads ClickHouse gives a query by itself: one a core."""
    [row] = server.rows("SELECT default FROM system.settings WHERE name = 'max_threads'")
    return int(re.sub(r"\D", "", row["default"]))
