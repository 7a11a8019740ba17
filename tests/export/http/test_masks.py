"""Masked columns: what is in the objects, and where the key is not."""

import hashlib
import hmac
import json
import re
from typing import Any, Literal

import pytest

from langfuse_export.catalog.content import ReplaceModel
from langfuse_export.formats import Encoding
from langfuse_export.tables import ALL_TABLES, Hash, Mask, Replace, Table
from tests.export.http.exporting import CSV, HOUR, JSONL, PARQUET, Deployment
from tests.rows import event, observation, score, trace

Masks = dict[str, Mask | Literal["drop"]]

KEY = b"correct horse battery staple"
HASH = Hash(KEY)
EMAIL = ReplaceModel.model_validate({"replace": r"[\w.+-]+@[\w.-]+\.\w+", "with": "[email]"})
FORMATS = pytest.mark.parametrize("encoding", [PARQUET, JSONL, CSV], ids=lambda e: e.extension)


def _hmac(value: str, key: bytes = KEY) -> str:
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()


def _export(deployment: Deployment, *tables: Table) -> None:
    deployment.tables = tables
    deployment.export()


def _value(encoding: Encoding, value: Any) -> Any:
    return json.loads(value) if encoding is CSV else value


@FORMATS
def test_a_hashed_column_is_the_hmac_of_the_value_in_every_table(
    deployment: Deployment, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    deployment.insert("traces", trace("t1", user_id="ada"), trace("t2", user_id="ö'\\"), trace("t3"))
    deployment.insert("events_full", event("e1", user_id="ada"), event("e2"))
    tables = [ALL_TABLES[name].masked({"user_id": HASH, "session_id": HASH}) for name in ("traces", "events")]

    _export(deployment, *tables)

    traces = {row["id"]: row["user_id"] for row in deployment.rows("traces")}
    nobody = "" if encoding is CSV else None
    assert traces == {"t1": _hmac("ada"), "t2": _hmac("ö'\\"), "t3": nobody}
    assert {row["id"]: row["user_id"] for row in deployment.rows("events")} == {"e1": _hmac("ada"), "e2": ""}


@FORMATS
def test_ids_that_are_hashed_still_join(deployment: Deployment, encoding: Encoding) -> None:
    deployment.encoding = encoding
    deployment.insert("traces", trace("t1"))
    deployment.insert("observations", observation("o1", trace_id="t1"))
    deployment.insert("scores", score("s1", trace_id="t1", observation_id="o1"))
    masks: Masks = {"id": HASH, "trace_id": HASH, "observation_id": HASH}

    _export(deployment, *(ALL_TABLES[name].masked(masks) for name in ("traces", "observations", "scores")))

    [t], [o], [s] = (deployment.rows(name) for name in ("traces", "observations", "scores"))
    assert t["id"] == o["trace_id"] == s["trace_id"] == _hmac("t1")
    assert o["id"] == s["observation_id"] == _hmac("o1")


@FORMATS
def test_matches_are_replaced_in_texts_maps_and_arrays(deployment: Deployment, encoding: Encoding) -> None:
    deployment.encoding = encoding
    phone = ReplaceModel.model_validate({"replace": r"\+(\d\d)\d{6,}", "with": r"+\1..."})
    replace = Replace((EMAIL.pair, phone.pair))
    masks: Masks = {"input": replace, "metadata": replace, "tags": replace, "environment": replace}
    text = "ask ada@example.org, or bob@example.org,\nat +49123456789"
    deployment.insert(
        "traces", trace("t", input=text, metadata={"a@b.de": text}, tags=[text, "x"], environment="a@b.de")
    )

    _export(deployment, ALL_TABLES["traces"].masked(masks))

    [row] = deployment.rows("traces")
    masked = "ask [email], or [email],\nat +49..."
    assert row["input"] == masked
    assert _value(encoding, row["metadata"]) == {"a@b.de": masked}
    assert _value(encoding, row["tags"]) == [masked, "x"]
    assert row["environment"] == "[email]"
    assert row["output"] == ("" if encoding is CSV else None)


@FORMATS
def test_dropped_columns_are_absent(deployment: Deployment, encoding: Encoding) -> None:
    deployment.encoding = encoding
    deployment.insert("traces", trace("t", input="secret", metadata={"k": "secret"}))

    _export(deployment, ALL_TABLES["traces"].masked({"input": "drop", "metadata": "drop"}))

    [row] = deployment.rows("traces")
    assert list(row) == [n for n in ALL_TABLES["traces"].column_names if n not in ("input", "metadata")]
    key = deployment.project.object_key(ALL_TABLES["traces"], HOUR)
    assert b"secret" not in deployment.store.read(key)


@pytest.mark.parametrize("name", list(ALL_TABLES))
def test_masks_change_no_type_of_any_column(deployment: Deployment, name: str) -> None:
    """Parquet and the manifest have the types that they have without masks."""
    table = ALL_TABLES[name].only("all")
    texts = [column.name for column in table.columns if column.type.endswith(("String)", "String"))]
    _export(deployment, table)
    plain = deployment.manifest().files[0].columns
    types = deployment.store.read(deployment.project.object_key(table, HOUR))

    _export(deployment, table.masked(dict.fromkeys(texts, HASH)))

    masked = deployment.manifest().files[0].columns
    assert [(column.name, column.type) for column in masked] == [(c.name, c.type) for c in plain]
    assert [column.name for column in masked if column.masked == "hash"] == texts
    assert deployment.store.read(deployment.project.object_key(table, HOUR)) == types


def test_repeated_keys_of_metadata_keep_their_order(deployment: Deployment) -> None:
    deployment.encoding = JSONL
    deployment.insert("events_full", event("e", metadata_names=["k", "k"], metadata_values=["1", "2"]))
    _export(deployment, ALL_TABLES["events"].masked({"metadata": HASH}))
    [line] = deployment.store.read(deployment.project.object_key(ALL_TABLES["events"], HOUR)).splitlines()
    hashes = re.findall(rb'"k":"(\w+)"', line)
    assert hashes == [_hmac("2").encode(), _hmac("1").encode()]


def test_the_key_is_in_no_log_of_clickhouse_and_in_no_representation(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t", user_id="ada"))
    table = ALL_TABLES["traces"].masked({"user_id": HASH})

    _export(deployment, table)

    assert deployment.rows("traces")[0]["user_id"] == _hmac("ada")
    logged = [q["query"] for q in deployment.server.exports_in_query_log() if "SHA256" in q["query"]]
    assert logged
    everything = deployment.server.execute("SELECT * FROM system.query_log FORMAT JSONEachRow").lower()
    for secret in (KEY, *HASH.secrets().values()):
        assert secret.hex() not in everything
        assert secret.decode("latin-1").lower() not in everything
    assert all("'[HIDDEN]'" in query for query in logged)
    assert "correct horse" not in repr(deployment.project)


def test_the_key_does_not_travel_in_a_url(deployment: Deployment) -> None:
    """Proxies log those."""
    _export(deployment, ALL_TABLES["traces"].masked({"user_id": HASH}))
    for request in deployment.server.requests:
        for secret in HASH.secrets().values():
            assert secret.hex() not in json.dumps(request.parameters)


def test_an_error_of_the_query_does_not_quote_the_key(deployment: Deployment) -> None:
    table = ALL_TABLES["traces"].masked({"user_id": HASH})
    deployment.server.execute("RENAME TABLE traces TO elsewhere")
    try:
        with pytest.raises(Exception, match="traces") as error:
            _export(deployment, table)
    finally:
        deployment.server.execute("RENAME TABLE elsewhere TO traces")
    assert not any(secret.hex() in str(error.value) for secret in HASH.secrets().values())


def test_a_long_key_is_a_key_of_hmac(deployment: Deployment) -> None:
    key = b"k" * 100
    deployment.insert("traces", trace("t", user_id="ada"))
    _export(deployment, ALL_TABLES["traces"].masked({"user_id": Hash(key)}))
    assert deployment.rows("traces")[0]["user_id"] == _hmac("ada", key)


def test_a_filter_sees_the_value_and_the_manifest_does_not(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t1", user_id="ada"), trace("t2", user_id="bob"))
    table = ALL_TABLES["traces"].filtered({"user_id": ["ada"], "environment": ["default"]})

    _export(deployment, table.masked({"user_id": HASH}))

    assert deployment.ids("traces") == ["t1"]
    [file] = deployment.manifest().files
    assert file.where == {"environment": ["default"], "user_id": ["***"]}
    masked = {column.name: column.masked for column in file.columns if column.masked}
    assert masked == {"user_id": "hash"}
    assert b'"ada"' not in deployment.store.read(deployment.project.manifest_key(HOUR))
