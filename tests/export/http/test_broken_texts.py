"""Strings that are no UTF-8, of which one would have readers refuse the whole file."""

from typing import Any

import pytest

from langfuse_export.day_read import day_files
from langfuse_export.formats import Encoding
from langfuse_export.resources import ExportOptions
from langfuse_export.tables import ALL_TABLES
from langfuse_export.windows import Window
from tests.export.http.exporting import ENCODINGS, HOUR, Deployment
from tests.rows import event, observation, run_item, score, trace

HALF = "\ude00 is half an emoji"  # as a client sends it that cuts texts; ClickHouse stores it as it is
BEFORE = Window(HOUR.start - (HOUR.end - HOUR.start), HOUR.start)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.extension)
@pytest.mark.parametrize("at_once", [False, True], ids=["a window", "a day at once"])
def test_half_an_emoji_does_not_make_a_file_unreadable(
    deployment: Deployment, encoding: Encoding, at_once: bool
) -> None:
    deployment = deployment.with_(encoding=encoding, tables=tuple(ALL_TABLES.values()))
    metadata: dict[str, Any] = {"metadata": {"key": HALF}}
    deployment.insert("traces", trace("t", HOUR.start, name=HALF, user_id=HALF, tags=[HALF], **metadata))
    deployment.insert("observations", observation("o", HOUR.start, input=HALF, tool_calls=[HALF], **metadata))
    deployment.insert("scores", score("s", HOUR.start, comment=HALF))
    names: dict[str, Any] = {"metadata_names": ["key"], "metadata_values": [HALF]}
    deployment.insert("events_full", event("e", HOUR.start, output=HALF, tags=[HALF], **names))
    deployment.insert("dataset_run_items_rmt", run_item("i", HOUR.start, dataset_item_input=HALF))

    _export(deployment, at_once)

    found = {name: str(deployment.rows(name)) for name in ALL_TABLES}
    assert {name: rows.count(" is half an emoji") for name, rows in found.items()} == {
        "traces": 4,
        "observations": 3,
        "scores": 1,
        "events": 3,
        "dataset_run_items": 1,
    }
    assert all("\ufffd is half an emoji" in rows for rows in found.values())


def _export(deployment: Deployment, at_once: bool) -> None:
    exporter, tables = deployment.exporter(), deployment.project.tables
    if not at_once:
        exporter.export(HOUR, tables)
        return
    options = ExportOptions.from_settings(deployment.server.settings())
    with day_files(exporter, [(table, [BEFORE, HOUR]) for table in tables], options) as files:
        exporter.export(HOUR, tables, read_ahead=files[HOUR])
