"""What years of ingestion leave in ClickHouse, so that what a batch looks up has to be found among it."""

from datetime import datetime

from tests.servers.clickhouse import ClickHouseServer

_ROWS = """
INSERT INTO {table} (project_id, id, event_ts, {time_column})
SELECT '{project}', lower(hex(sipHash128(number))), now64(3),
    toDateTime64('{day:%Y-%m-%d} 23:59:59', 3) - number % (60 * 86400)
FROM numbers({count})
"""
_SEGMENTS = """
INSERT INTO {table} (project_id, {columns}, event_ts)
SELECT '{project}', {values}, concat('{project}/2026/06/01/08/00/', hex(sipHash128(intDiv(number, 100)))),
    now64(3)
FROM numbers({count})
"""
_OF_LOGS = {
    "event_log_index": ("entity, segment", "sipHash64(number)"),
    "blob_storage_file_log": (
        "entity_type, event_id, entity_id, bucket_path",
        "['trace', 'observation', 'score'][number % 3 + 1], toString(intDiv(number, 100)), "
        "lower(hex(sipHash128(number)))",
    ),
}


def store_events(server: ClickHouseServer, project: str, day: datetime, observations: int) -> None:
    """Insert so many observations of sixty days up to this one, an eighth as many traces and scores, and what
    both logs know of them."""
    counts = {"observations": observations, "traces": observations // 8, "scores": observations // 8}
    for table, count in counts.items():
        time_column = "start_time" if table == "observations" else "timestamp"
        values = {"table": table, "time_column": time_column, "project": project, "day": day, "count": count}
        server.execute(_ROWS.format(**values))
    for table, (columns, expressions) in _OF_LOGS.items():
        values = {"table": table, "columns": columns, "values": expressions, "project": project}
        server.execute(_SEGMENTS.format(**values, count=sum(counts.values())))
