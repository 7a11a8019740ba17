"""Observations as they lie in ClickHouse while a busy project is exported: several versions, some deleted."""

from tests.rows import PROJECT
from tests.servers.clickhouse import ClickHouseServer

PARTS = 8
_WORDS = "splitByChar(' ', 'the model answers a question about an invoice with two items and a refund')"


def fill(server: ClickHouseServer, rows: int) -> None:
    """Insert that many into the window, of 3.4 KB of text on average and 11 KB at most.

    Every fourth has a newer version with another output, every hundredth has been deleted. They lie in 13
    parts that are not merged any further, so that whatever reads them finds the same.
    """
    server.execute("SYSTEM STOP MERGES observations")
    step = rows // PARTS
    for first in range(0, rows, step):
        _insert(server, first, step)
    for first in range(0, rows, 2 * step):
        _insert(server, first, 2 * step, version=2, where="cityHash64(number, 7) % 4 = 0")
    _insert(server, 0, rows, version=3, where="cityHash64(number, 9) % 100 = 0", deleted=1)


def _insert(
    server: ClickHouseServer, first: int, count: int, *, version: int = 1, where: str = "1", deleted: int = 0
) -> None:
    """Insert a version of the numbered observations as one part."""
    cost = "toDecimal64(number % 100 / 5000, 12)"
    server.execute(
        "INSERT INTO observations (id, trace_id, project_id, type, start_time, end_time, name, metadata, "
        "level, input, output, provided_model_name, model_parameters, usage_details, cost_details, "
        "total_cost, completion_start_time, event_ts, is_deleted) "
        f"SELECT hex(sipHash128(number)), hex(intDiv(number, 8)), '{PROJECT}', "
        "['SPAN', 'GENERATION', 'SPAN', 'EVENT'][1 + number % 4], "
        "toDateTime64('2026-06-01 12:00:00', 3) + number % 3600 AS start, start + 2, "
        "concat('step-', toString(number % 40)), "
        "map('region', 'eu-west-1', 'tier', toString(number % 5), 'sdk', 'python'), 'DEFAULT', "
        f"{_text('cityHash64(number) % 8', 1)}, {_text('cityHash64(number, 1) % 6', version)}, "
        "concat('model-', toString(number % 7)), '{\"temperature\": 0.2}', "
        "map('input', number % 4000, 'output', number % 900, 'total', number % 4900), "
        f"map('total', {cost}), {cost}, start + 1, start + {version}, {deleted} "
        f"FROM numbers({first}, {count}) WHERE {where} SETTINGS max_threads = 1"
    )


def _text(doublings: str, salt: int) -> str:
    """Text of ten words, doubled so many times; another salt makes other text."""
    word = f"arrayElement({_WORDS}, 1 + cityHash64(number, i, {salt}) % 14)"
    numbered = f"concat({word}, toString(cityHash64(i, number, {salt}) % 997))"
    return (
        f"arrayStringConcat(arrayMap(i -> {numbered}, range(bitShiftLeft(toUInt32(10), {doublings}))), ' ')"
    )
