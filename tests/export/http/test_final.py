"""Random rows, versions, deletions and strings: every object equals what ClickHouse's FINAL returns."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langfuse_export.formats import Encoding
from langfuse_export.tables import ALL_TABLES, Table
from tests.export import comparing
from tests.export.http.exporting import ENCODINGS, HOUR, Deployment
from tests.export.http.strategies import versions
from tests.rows import PROJECT, Row

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def true_rows(deployment: Deployment, table: Table) -> list[str]:
    """The window's rows as ClickHouse has them."""
    time = f"t.{table.time_column}"
    window = f"{time} >= '{HOUR.start:%F %T}' AND {time} < '{HOUR.end:%F %T}'"
    where = f"project_id = '{PROJECT}' AND {window}"
    return sorted(map(repr, comparing.stored_rows(deployment.server, table, deployment.encoding, where)))


def exported_rows(deployment: Deployment, table: Table) -> list[str]:
    """The object's rows."""
    data = deployment.store.read(deployment.project.object_key(table, HOUR))
    scratch = deployment.blobs.parent
    return sorted(
        map(repr, comparing.exported_rows(deployment.server, table, deployment.encoding, data, scratch))
    )


@pytest.mark.defect("D3", "D4", "D6", "F6")
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
@pytest.mark.parametrize("name", list(ALL_TABLES))
def test_every_object_holds_exactly_what_final_returns(
    deployment: Deployment, name: str, encoding: Encoding
) -> None:
    table = ALL_TABLES[name]
    deployment.encoding = encoding

    @settings(max_examples=8, suppress_health_check=SLOW)
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
