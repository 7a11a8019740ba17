"""Texts that a client has cut in the middle of an emoji are ingested, with U+FFFD for the half."""

import json
from typing import Any

import orjson
import pytest

from langfuse_ingest.surrogates import read_json
from tests.ingest.deployment import PROJECT, Deployment
from tests.ingest.sessions import START, event, trace
from tests.ingest.spans import CHILD, ROOT, attributes, export, ingest, span
from tests.ingest.test_commands import ingest as ingest_file

HALF, REST = "\ud83d", "\ude00"
WHOLE = "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"a\uDE00b"', "a\ufffdb"),
        (rb'"\ud83d\ud83d\ude00\ude00"', f"\ufffd{WHOLE}\ufffd"),
        (rb'["\ud83d", "\\ud83d", "\\\ud83d", "\"\n\u00e9"]', ["\ufffd", "\\ud83d", "\\\ufffd", '"\né']),
        (rb'{"\ud83d": {"\ude00": 1}}', {"\ufffd": {"\ufffd": 1}}),
        (f'"{HALF} {WHOLE}"', f"\ufffd {WHOLE}"),
        (f'"{HALF} {WHOLE}"'.encode(errors="surrogatepass"), f"\ufffd {WHOLE}"),
    ],
)
def test_json_with_half_an_emoji_is_read(text: bytes | str, means: Any) -> None:
    assert read_json(text) == means


@pytest.mark.parametrize("text", [rb'"\ud83d', rb'\ud83d "a"', b'"\xff"', rb'"\x"', b""])
def test_what_is_no_json_besides_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        read_json(text)


def test_events_with_half_an_emoji_are_stored_and_so_are_their_neighbours(deployment: Deployment) -> None:
    body = {"name": f"n{HALF}", "input": {f"k{HALF}": [f"{REST}v"]}, "tags": [HALF, f"{HALF}{REST}"]}
    events = [trace("a"), trace(f"b{HALF}", **body, **{HALF: 1}), trace("c")]
    events[1]["id"] = f"e{HALF}"

    receipt = deployment.accept(events)
    deployment.work()

    assert (len(receipt.accepted), receipt.accepted[1], receipt.rejected) == (3, "e\ufffd", [])
    _, row, _ = deployment.rows("traces")
    assert deployment.ids("traces") == ["a", "b\ufffd", "c"]
    assert (row["name"], row["tags"]) == ("n\ufffd", [WHOLE, "\ufffd"])
    assert json.loads(row["input"]) == {"k\ufffd": ["\ufffdv"]}


def test_an_invalid_event_with_half_an_emoji_can_be_named(deployment: Deployment) -> None:
    broken = {**event("nonsense", START, {"id": "x"}), "id": f"e{HALF}"}
    [rejection] = deployment.accept([broken]).rejected
    assert (rejection.id, rejection.reason) == ("e\ufffd", "unknown_type")


def test_spans_with_half_an_emoji_are_stored_and_so_are_their_neighbours(deployment: Deployment) -> None:
    metadata = json.dumps({"cut": HALF})
    cut = span(ROOT, name=f"n{HALF}", langfuse__observation__metadata=metadata)
    request = export(cut, span(CHILD, ROOT))
    request["resourceSpans"][0]["resource"]["attributes"] += attributes(**{f"key{HALF}": f"{REST}v"})

    receipt = deployment.parts.producer.accept_spans(PROJECT, request)
    deployment.work()

    assert (receipt.accepted, receipt.rejected) == ([ROOT, CHILD], [])
    _, row = deployment.rows("observations")
    assert (row["name"], row["metadata"]["cut"]) == ("n\ufffd", "\ufffd")
    assert "\ufffdv" in str(row["metadata"])


def test_json_in_an_attribute_may_hold_half_an_emoji(deployment: Deployment) -> None:
    ingest(deployment, span(ROOT, langfuse__observation__metadata=r'{"cut": "\ud83d", "a": "b"}'))
    [row] = deployment.rows("observations")
    assert (row["metadata"]["cut"], row["metadata"]["a"]) == ("\ufffd", "b")


@pytest.mark.parametrize("shape", ["lines", "pretty batch", "otlp"])
def test_files_may_hold_half_an_emoji(deployment: Deployment, shape: str) -> None:
    events = [trace("a"), trace(f"b{HALF}", name=f"n{HALF}")]
    text = {
        "lines": "".join(json.dumps(event) + "\n" for event in events),
        "pretty batch": json.dumps({"batch": events}, indent=2),
        "otlp": json.dumps(export(span(CHILD, ROOT), span(ROOT, name=f"n{HALF}"))),
    }[shape]

    ended = ingest_file("-", stdin=text)
    deployment.work()

    assert (ended.code, ended.out) == (0, "2 accepted, 0 rejected\n")
    rows = deployment.rows("observations" if shape == "otlp" else "traces")
    assert rows[1]["name"] == "n\ufffd"


def test_a_row_that_langfuse_has_stored_with_half_an_emoji_is_merged(deployment: Deployment) -> None:
    deployment.ingest([trace("a", name="n", input="x")])
    [row] = deployment.clickhouse.rows("SELECT * FROM traces")
    stored = json.dumps({**row, "id": "b", "input": f"x{REST}"})
    lenient = "SETTINGS input_format_json_throw_on_bad_escape_sequence = 0"
    deployment.clickhouse.execute(f"INSERT INTO traces {lenient} FORMAT JSONEachRow {stored}")

    deployment.ingest([trace("b", userId="u")])

    _, row = deployment.rows("traces")
    assert (row["input"], row["user_id"]) == ("x\ufffd", "u")
