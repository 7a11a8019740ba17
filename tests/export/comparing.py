"""Rows of objects and of ClickHouse in one notation, whatever the format of the objects."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.tables import Table
from tests.export.http.exporting import decompressed
from tests.servers.clickhouse import ClickHouseServer

# Numbers that JSON readers would round come as strings.
QUOTED = "SETTINGS output_format_json_quote_64bit_integers = 1, output_format_json_quote_decimals = 1"

Cells = list[tuple[str, Any]]


def stored_rows(server: ClickHouseServer, table: Table, encoding: Encoding, condition: str) -> list[Cells]:
    """What ClickHouse has, by the plainest query there is: FINAL over everything, filtered afterwards."""
    columns = ", ".join(f"{column.sql} AS `{column.name}`" for column in table.columns)
    where = f"{condition} AND {table.row_filter}" if table.row_filter else condition
    sql = f"SELECT {columns} FROM (SELECT * FROM {table.source} FINAL) AS t WHERE {where}"
    rows = _parsed(server.execute(f"{sql} {QUOTED} FORMAT JSONEachRow"))
    if encoding.format is FileFormat.CSV:
        return [[(name, _csv_value(value)) for name, value in row] for row in rows]
    return rows


def exported_rows(
    server: ClickHouseServer, table: Table, encoding: Encoding, data: bytes, scratch: Path
) -> list[Cells]:
    """What an object holds, read by ClickHouse where the format has types."""
    if encoding.format is FileFormat.PARQUET:
        path = scratch / "object.parquet"
        path.write_bytes(data)
        structure = ", ".join(f"`{c.name}` {c.type}" for c in table.columns)
        source = f"file('{path}', 'Parquet', '{structure}')"
        return _parsed(server.execute(f"SELECT * FROM {source} {QUOTED} FORMAT JSONEachRow"))
    text = decompressed(data, encoding).decode()
    if encoding.format is FileFormat.JSONL:
        return _parsed(text)
    if encoding.format is FileFormat.JSON:
        return _loads(text)
    return [_csv_row(table, row) for row in csv.DictReader(io.StringIO(text, newline=""))]


def _loads(text: str) -> Any:
    """JSON with its numbers as their text, and with repeated keys."""
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list)


def _parsed(lines: str) -> list[Cells]:
    return [_loads(line) for line in lines.split("\n")[:-1]]


def _csv_value(value: Any) -> Any:
    """What CSV can say of a value: NULL is the empty string, everything but maps and arrays is text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _csv_row(table: Table, row: dict[str, str]) -> Cells:
    nested = {c.name for c in table.columns if c.type.startswith(("Map(", "Array("))}
    return [(name, _loads(text) if name in nested else text) for name, text in row.items()]
