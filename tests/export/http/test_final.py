"""Random rows, versions, deletions and strings: every object equals what ClickHouse's FINAL returns."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.tables import ALL_TABLES, Table
from tests.export.http.exporting import ENCODINGS, HOUR, Deployment, decompressed
from tests.export.http.strategies import versions
from tests.rows import PROJECT, Row

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
# Numbers that JSON readers would round come as strings.
QUOTED = "SETTINGS output_format_json_quote_64bit_integers = 1, output_format_json_quote_decimals = 1"


def true_rows(deployment: Deployment, table: Table) -> list[str]:
    """The window by the plainest query there is: FINAL over everything, filtered afterwards."""
    columns = ", ".join(f"{column.sql} AS `{column.name}`" for column in table.columns)
    where = f"project_id = '{PROJECT}'" + (" AND " + table.row_filter if table.row_filter else "")
    time = f"t.{table.time_column}"
    where += f" AND {time} >= '{HOUR.start:%F %T}' AND {time} < '{HOUR.end:%F %T}'"
    sql = f"SELECT {columns} FROM (SELECT * FROM {table.source} FINAL) AS t WHERE {where}"
    rows = _parsed(deployment.server.execute(f"{sql} {QUOTED} FORMAT JSONEachRow"))
    if deployment.encoding.format is FileFormat.CSV:
        rows = [[(name, _csv_value(value)) for name, value in row] for row in rows]
    return sorted(map(repr, rows))


def exported_rows(deployment: Deployment, table: Table) -> list[str]:
    """The object's rows, read by ClickHouse where the format has types."""
    key = deployment.project.object_key(table, HOUR)
    kind = deployment.encoding.format
    if kind is FileFormat.PARQUET:
        structure = ", ".join(f"`{c.name}` {c.type}" for c in table.columns)
        source = f"file('{deployment.blobs}/{key}', 'Parquet', '{structure}')"
        lines = deployment.server.execute(f"SELECT * FROM {source} {QUOTED} FORMAT JSONEachRow")
        return sorted(map(repr, _parsed(lines)))
    text = decompressed(deployment.store.read(key), deployment.encoding).decode()
    if kind is FileFormat.JSONL:
        return sorted(map(repr, _parsed(text)))
    if kind is FileFormat.JSON:
        return sorted(map(repr, _loads(text)))
    return sorted(repr(_csv_row(table, row)) for row in csv.DictReader(io.StringIO(text, newline="")))


def _loads(text: str) -> Any:
    """JSON with its numbers as their text, and with repeated keys."""
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list)


def _parsed(lines: str) -> list[Any]:
    return [_loads(line) for line in lines.split("\n")[:-1]]


def _csv_value(value: Any) -> Any:
    """What CSV can say of a value: NULL is the empty string, everything but maps and arrays is text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _csv_row(table: Table, row: dict[str, str]) -> list[tuple[str, Any]]:
    nested = {c.name for c in table.columns if c.type.startswith(("Map(", "Array("))}
    return [(name, _loads(text) if name in nested else text) for name, text in row.items()]


@pytest.mark.defect("D3", "D4", "D6", "F6")
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
@pytest.mark.parametrize("name", list(ALL_TABLES))
def test_every_object_holds_exactly_what_final_returns(
    deployment: Deployment, name: str, encoding: Encoding
) -> None:
    table = ALL_TABLES[name]
    deployment.encoding = encoding

    @settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
    @given(st.lists(versions(name), max_size=12), st.booleans())
    def check(rows: list[Row], merged: bool) -> None:
        deployment.server.execute(f"TRUNCATE TABLE {table.source}")
        for at in range(0, len(rows), 4):
            deployment.insert(table.source, *rows[at : at + 4])
        if merged:
            deployment.server.execute(f"OPTIMIZE TABLE {table.source} FINAL")

        deployment.export(tables=[table])

        assert exported_rows(deployment, table) == true_rows(deployment, table)

    check()
