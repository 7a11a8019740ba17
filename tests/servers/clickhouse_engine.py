"""ClickHouse's real engine, chDB, as the server of the tests uses it.

What it cannot do is added here: streamed results (the engine writes into a FIFO that is named by the query
id), and `KILL QUERY` and the query log by that id.
"""

import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chdb.state.sqlitelike import Connection

CHUNK_BYTES = 256 << 10
_F_SETPIPE_SZ = 1031
# Of the HTTP interface itself; everything else in the query string is a setting.
_NOT_SETTINGS = {"query", "database", "query_id", "user", "password", "session_id", "client_protocol_version"}
_NOT_SETTINGS |= {"buffer_size", "wait_end_of_query", "compress", "decompress", "role", "quota_key"}
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_STREAMED = {"Parquet", "JSONEachRow", "CSVWithNames", "Arrow", "ArrowStream"}
_CONFIG = """<clickhouse>
  <query_log><database>system</database><table>query_log</table>
  <flush_interval_milliseconds>500</flush_interval_milliseconds></query_log>
  {users}
</clickhouse>"""
_USERS = "<user_directories><users_xml><path>{path}</path></users_xml></user_directories>"
# An answer is made of blocks as they come; an INSERT would first gather 256 MB of them.
_BLOCKS_AS_THEY_COME = "SET min_insert_block_size_rows = 1, min_insert_block_size_bytes = 1"
# The engine's own ids, replaced by those of the requests, which are in the names of the FIFOs and objects.
_QUERY_LOG = (
    "(SELECT * REPLACE (if(startsWith(query, 'INSERT INTO FUNCTION '), "
    "extract(query, '/([^/\\']+)\\','), query_id) AS query_id) FROM system.query_log)"
)


class QueryFailed(Exception):
    """The engine's error text."""


@dataclass(frozen=True)
class Engine:
    """Where the engine has its data, and a users.xml that decides who may what; without it: anything."""

    path: str
    users: str = ""

    @property
    def connection_string(self) -> str:
        """What chDB opens; writes the engine's configuration."""
        config = Path(self.path).with_suffix(".xml")
        config.write_text(_CONFIG.format(users=_USERS.format(path=self.users) if self.users else ""))
        return f"{self.path}?config-file={config}"


class Execution:
    """One query on a connection of its own, so that its settings are its own."""

    def __init__(self, engine: Engine, sql: str, parameters: dict[str, str], data: bytes) -> None:
        self._data = data
        self._connection_string = engine.connection_string
        format_clause = _FORMAT.search(sql)
        self._format = format_clause[1] if format_clause else "TabSeparated"
        self._sql = _FORMAT.sub("", sql) if format_clause else sql
        if "KILL QUERY" in sql:
            by_fifo = "query LIKE '%/' || {id:String} || '\\'%' AND query NOT LIKE 'KILL%'"
            self._sql = self._sql.replace("query_id = {id:String}", by_fifo)
        if "query_id IN" in sql:
            self._sql = self._sql.replace("system.query_log", _QUERY_LOG)
        self._parameters = {k[6:]: v for k, v in parameters.items() if k.startswith("param_")}
        self._settings = {
            k: v for k, v in parameters.items() if k not in _NOT_SETTINGS and not k.startswith("param_")
        }
        self._database = parameters.get("database")
        self._query_id = parameters.get("query_id", "result")
        self._may_write_files = not engine.users

    @property
    def is_streamed(self) -> bool:
        # A user of the product's own may not write into a FIFO: its queries run as they are, and whole.
        is_select = self._sql.lstrip().upper().startswith(("SELECT", "WITH"))
        return is_select and self._format in _STREAMED and self._may_write_files

    def result(self) -> bytes:
        """The whole result. Raises QueryFailed."""
        with self._connection() as connection:
            if self._data:
                with tempfile.NamedTemporaryFile() as file:
                    file.write(self._data)
                    file.flush()
                    target, *settings = re.split(r"(?=\sSETTINGS\s)", self._sql, maxsplit=1)
                    sql = f"{target} FROM INFILE '{file.name}' {''.join(settings)} FORMAT {self._format}"
                    return query(connection, sql, "TabSeparated", self._parameters)
            return query(connection, self._sql, self._format, self._parameters)

    @contextmanager
    def stream(self) -> Iterator[Iterator[bytes]]:
        """The result as the engine writes it; raises QueryFailed where it breaks."""
        with tempfile.TemporaryDirectory() as directory, self._connection() as connection:
            query(connection, _BLOCKS_AS_THEY_COME, "TabSeparated", {})
            fifo = os.path.join(directory, self._query_id)
            os.mkfifo(fifo)
            reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            writing = os.open(fifo, os.O_WRONLY)  # held open, so that only closing it ends the stream
            os.set_blocking(reading, True)
            fcntl.fcntl(reading, _F_SETPIPE_SZ, CHUNK_BYTES)
            errors: list[QueryFailed] = []

            def write() -> None:
                try:
                    query(connection, self._into(fifo), "TabSeparated", self._parameters)
                except QueryFailed as error:
                    errors.append(error)
                finally:
                    os.close(writing)

            def chunks() -> Iterator[bytes]:
                while chunk := os.read(reading, CHUNK_BYTES):
                    yield chunk
                writer.join()
                if errors:
                    raise errors[0]

            writer = threading.Thread(target=write)
            writer.start()
            try:
                yield chunks()
            finally:
                os.close(reading)  # the engine's next write fails
                writer.join()

    def _into(self, fifo: str) -> str:
        return f"INSERT INTO FUNCTION file('{fifo}', '{self._format}', 'auto', 'none') {self._sql}"

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = Connection(self._connection_string)
        try:
            if self._database:
                query(connection, f"USE `{self._database}`", "TabSeparated", {})
            if self._settings:
                clause = ", ".join(f"{k} = {_quoted(v)}" for k, v in self._settings.items())
                query(connection, f"SET {clause}", "TabSeparated", {})
            yield connection
        finally:
            connection.close()


def query(connection: Connection, sql: str, output_format: str, parameters: dict[str, str]) -> bytes:
    """The result of a query. Raises QueryFailed."""
    try:
        return connection.query(sql, output_format, params=parameters).bytes()
    except Exception as error:  # chDB raises RuntimeError and its own types
        raise QueryFailed(str(error)[str(error).find("Code:") :]) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
