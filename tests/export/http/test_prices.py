"""Prices of models in the objects: whose, which, exactly, and as of when."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from langfuse_export import sql
from langfuse_export.day_read import day_files
from langfuse_export.errors import WindowError, is_transient, reason_of
from langfuse_export.formats import Encoding
from langfuse_export.tables import EVENTS, OBSERVATIONS, TRACES, Hash, Table
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment
from langfuse_worker.postgres import Database
from tests.export.http.exporting import CSV, ENCODINGS, HOUR, JSONL, PARQUET, Deployment
from tests.export.http.heavy import SECOND_PART, TOO_MUCH_AT_ONCE, exporter_of_parts, payload_queries, staged
from tests.export.http.test_day_read import options
from tests.rows import NOON, PROJECT, Row, event, observation, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.langfuse_postgres import LangfusePostgres

PRICED = (OBSERVATIONS.with_price_columns(), EVENTS.with_price_columns())
COLUMNS = ["input_price", "output_price", "total_price", "prices_as_of"]
FORMATS = pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.extension)
# The smallest and the largest value of DECIMAL(65, 30), and what no float can hold.
SMALLEST = "0.000000000000000000000000000001"
LARGEST = f"{'9' * 35}.{'9' * 30}"
EXACT = "12345678901234567890.123456789012345678901234567890"


@pytest.fixture
def deployment(deployment: Deployment, langfuse: LangfusePostgres) -> Iterator[Deployment]:
    """Exports of observations and events of project p1, with the prices in Langfuse's Postgres."""
    deployment.tables = PRICED
    with deployment.with_(postgres=Database(SecretStr(langfuse.url))) as priced:
        yield priced


def insert_calls(deployment: Deployment, **models: str | None) -> None:
    """An observation and an event for each id, a minute apart, of the model with that id."""
    calls = [(id, NOON + timedelta(minutes=n), model) for n, (id, model) in enumerate(models.items())]
    deployment.insert("observations", *(observation(id, at, internal_model_id=m) for id, at, m in calls))
    deployment.insert("events_full", *(event(id, at, model_id=m or "") for id, at, m in calls))


def prices(deployment: Deployment, table: Table, window: Window = HOUR) -> dict[str, list[str | None]]:
    """Input, output and total price of each row in the object; CSV has no NULL but the empty string."""
    return {
        row["id"]: [row[name] or None for name in COLUMNS[:3]] for row in deployment.rows(table.name, window)
    }


def moments(rows: list[Row]) -> set[str]:
    """The points in time in the rows, as manifests write them."""
    values = {row["prices_as_of"] for row in rows}
    times = {v if isinstance(v, datetime) else datetime.fromisoformat(v) for v in values}
    return {t.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") for t in times}


def as_of(deployment: Deployment, table: Table = PRICED[0], window: Window = HOUR) -> str | None:
    """The point in time in the manifest's entry of a table."""
    return next(file.prices_as_of for file in deployment.manifest(window).files if file.table == table.path)


@FORMATS
def test_prices_are_exact_in_every_format(
    deployment: Deployment, langfuse: LangfusePostgres, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    langfuse.add_model("m", input=SMALLEST, output=LARGEST, total=EXACT)
    langfuse.add_model("round", input="0.03", output="2", total="0")
    insert_calls(deployment, a="m", b="round")

    deployment.export()

    for table in PRICED:
        found = prices(deployment, table)
        assert found == {"a": [SMALLEST, LARGEST, EXACT[:-1]], "b": ["0.03", "2", "0"]}
        assert list(deployment.rows(table.name)[0])[-4:] == COLUMNS


@pytest.mark.defect("D11")
def test_prices_in_csv_have_no_quotes_of_their_own(
    deployment: Deployment, langfuse: LangfusePostgres
) -> None:
    deployment.encoding = CSV
    langfuse.add_model("m", input="0.03")
    insert_calls(deployment, a="m")

    deployment.export()

    for table in PRICED:
        line = deployment.store.read(deployment.project.object_key(table, HOUR)).splitlines()[-1]
        assert re.search(rb',"0\.03","","","[-0-9]{10} [0-9:]{8}\.\d{3}"$', line)


@FORMATS
def test_whose_prices_they_are(
    deployment: Deployment, langfuse: LangfusePostgres, encoding: Encoding
) -> None:
    """Of the project's own models and of everybody's, of the default tier; NULL where there is none."""
    deployment.encoding = encoding
    langfuse.add_model("global", input="1", output="2")
    langfuse.add_model("own", "p1", total="3")
    langfuse.add_model("theirs", "p2", input="4")
    langfuse.add_model("global", tier="large context", input="5", total="6")
    langfuse.add_model("o'\\wn", "p1", input="7")
    langfuse.add_model("tier only", tier="large context", input="8")
    langfuse.add_model("free")
    models = ("global", "own", "theirs", "o'\\wn", "tier only", "free", "unknown", None)
    insert_calls(deployment, **{str(model): model for model in models})

    deployment.export()

    for table in PRICED:
        found = prices(deployment, table)
        assert {id: row for id, row in found.items() if row != [None] * 3} == {
            "global": ["1", "2", None],
            "own": [None, None, "3"],
            "o'\\wn": ["7", None, None],
        }
        assert len(found) == len(models)


@FORMATS
def test_the_point_in_time_is_in_every_row_and_in_the_manifest(
    deployment: Deployment, langfuse: LangfusePostgres, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    langfuse.add_model("m", input="1")
    insert_calls(deployment, a="m", b=None)
    [before] = langfuse.execute("SELECT date_trunc('milliseconds', clock_timestamp()) AS now")

    deployment.export()

    [after] = langfuse.execute("SELECT clock_timestamp() AS now")
    for table in PRICED:
        named = as_of(deployment, table)
        assert named is not None
        assert before["now"] <= datetime.fromisoformat(named) <= after["now"]
        assert moments(deployment.rows(table.name)) == {named}


def test_a_price_that_changes_is_in_the_next_revision_with_its_time(
    deployment: Deployment, langfuse: LangfusePostgres
) -> None:
    langfuse.add_model("m", input="1")
    insert_calls(deployment, a="m")
    deployment.export()
    old = deployment.manifest()

    langfuse.set_price("m", "input", "1.5")
    deployment.export()

    new = deployment.manifest()
    assert (old.revision, new.revision) == (1, 2)
    for table, before, after in zip(PRICED, old.files, new.files, strict=True):
        assert str(before.prices_as_of) < str(after.prices_as_of)
        assert before.source_fingerprint == after.source_fingerprint
        assert prices(deployment, table) == {"a": ["1.5", None, None]}
        assert moments(deployment.rows(table.name)) == {after.prices_as_of}


def test_without_the_option_objects_and_manifests_are_as_before(deployment: Deployment) -> None:
    insert_calls(deployment, a="m")
    deployment.tables = (OBSERVATIONS, EVENTS)
    with deployment.with_(postgres=None) as plain:
        plain.export()
        text = plain.store.read(plain.project.manifest_key(HOUR)).decode()
        for table in (OBSERVATIONS, EVENTS):
            assert list(plain.rows(table.name)[0]) == table.column_names
    assert "price" not in text.lower()


def test_columns_of_prices_can_be_chosen_left_out_and_masked(
    deployment: Deployment, langfuse: LangfusePostgres
) -> None:
    langfuse.add_model("m", input="1", output="2", total="3")
    insert_calls(deployment, a="m")
    key = b"correct horse battery staple"
    chosen = PRICED[0].only(["output_price", "name"]).masked({"name": Hash(key)})
    dropped = PRICED[1].masked({"input_price": "drop", "model_id": Hash(key), "total_price": Hash(key)})
    deployment.tables = (chosen, dropped)

    deployment.export()

    [row] = deployment.rows("observations")
    assert set(row) == {"output_price", "name", *OBSERVATIONS.required}
    assert row["output_price"] == "2"
    assert as_of(deployment, chosen) is not None
    [row] = deployment.rows("events")
    assert "input_price" not in row
    assert row["output_price"] == "2"  # by the model's id, which nobody sees
    assert len(row["model_id"]) == len(row["total_price"]) == 64


def test_thousands_of_models_do_not_travel_in_the_url(
    deployment: Deployment, langfuse: LangfusePostgres
) -> None:
    langfuse.execute(
        "INSERT INTO models (id, model_name, match_pattern) "
        "SELECT 'model-number-' || n, n, '' FROM generate_series(1, 20000) AS n;"
        "INSERT INTO pricing_tiers (id, model_id, name, is_default, priority, conditions) "
        "SELECT id, id, 'default', true, 0, '[]' FROM models;"
        "INSERT INTO prices (id, model_id, pricing_tier_id, usage_type, price) "
        "SELECT id || kind, id, id, kind, model_name::numeric / 1000000 FROM models, "
        "unnest(ARRAY['input', 'output', 'total']) AS kind"
    )
    insert_calls(deployment, a="model-number-19999", b="model-number-3")
    seen = len(deployment.server.requests)

    deployment.export()

    found = {"a": ["0.019999"] * 3, "b": ["0.000003"] * 3}
    assert [prices(deployment, table) for table in PRICED] == [found, found]
    for request in deployment.server.requests[seen:]:
        assert sum(len(value) for value in request.parameters.values()) < 4096


def test_no_object_is_written_without_prices(deployment: Deployment, langfuse: LangfusePostgres) -> None:
    """A table without them is; the rest is tried again."""
    deployment.tables = (TRACES, *PRICED)
    deployment.insert("traces", trace("t"))
    insert_calls(deployment, a="m")

    with langfuse.closed(), pytest.raises(WindowError) as failure:
        deployment.export()

    assert set(failure.value.failures) == {"observations", "events"}
    assert is_transient(failure.value)
    assert reason_of(failure.value) == "prices_unavailable"
    assert deployment.files() == ["p1/traces/2026-06-01T13-00-00.parquet"]


def test_a_query_whose_prices_nobody_bound_is_refused(deployment: Deployment) -> None:
    """Not answered without them."""
    text, parameters = sql.select(PRICED[0]), sql.parameters(PRICED[0], PROJECT, HOUR)
    with pytest.raises(ClickHouseError, match="price_models"):
        deployment.source.rows(Query(text, QueryComment(purpose="test"), parameters))


@FORMATS
def test_a_day_read_at_once_has_the_same_prices(
    deployment: Deployment, langfuse: LangfusePostgres, encoding: Encoding
) -> None:
    deployment.encoding, deployment.tables = encoding, PRICED[:1]
    windows = [Window(HOUR.start + timedelta(hours=n), HOUR.end + timedelta(hours=n)) for n in range(3)]
    langfuse.add_model("m", input=EXACT, total=SMALLEST)
    for n, window in enumerate(windows):
        at = window.start + timedelta(minutes=5)
        deployment.insert("observations", observation(f"a{n}", at, internal_model_id="m"))
        deployment.insert("observations", observation(f"b{n}", at))
    exporter = deployment.exporter()

    with day_files(exporter, [(PRICED[0], windows)], options(deployment)) as files:
        langfuse.set_price("m", "input", "2")  # the attempt has its prices
        for window in windows:
            assert set(files[window]) == {"observations"}
            exporter.export(window, PRICED[:1], read_ahead=files[window])

    moment = as_of(deployment)
    for n, window in enumerate(windows):
        found = prices(deployment, PRICED[0], window)
        assert found == {f"a{n}": [EXACT[:-1], None, SMALLEST], f"b{n}": [None] * 3}
        assert moments(deployment.rows("observations", window)) == {moment}
        assert as_of(deployment, window=window) == moment


@FORMATS
def test_a_window_in_parts_has_prices_of_one_moment(
    deployment: Deployment, langfuse: LangfusePostgres, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    langfuse.add_model("m", input=EXACT)
    insert_calls(deployment, **{f"id{n}": "m" if n % 2 else None for n in range(9)})

    exporter_of_parts(deployment, rows=2).export(HOUR, PRICED)

    assert [file.parts for file in deployment.manifest().files] == [5, 5]
    for table in PRICED:
        assert prices(deployment, table)["id1"] == [EXACT[:-1], None, None]
        assert moments(deployment.rows(table.name)) == {as_of(deployment, table)}


def break_in_the_second_half(deployment: Deployment) -> str:
    """Fail with the first half staged; the moment of its prices."""
    deployment.tables = PRICED[:1]
    models = {f"o{n}": "m" for n in range(20)}
    insert_calls(deployment, **models)
    deployment.server.break_next(TOO_MUCH_AT_ONCE, Fault("refuse", match=SECOND_PART, code=210))
    with pytest.raises(WindowError):
        deployment.export()
    [plan] = [name for name in staged(deployment) if name.endswith("plan.json")]
    return json.loads((deployment.blobs / plan).read_text())["prices_as_of"]


def test_an_attempt_that_goes_on_keeps_the_moment_of_its_parts(
    deployment: Deployment, langfuse: LangfusePostgres
) -> None:
    """The prices are the same, so what was read before is not read again."""
    langfuse.add_model("m", input="1")
    moment = break_in_the_second_half(deployment)
    seen = len(deployment.server.requests)

    deployment.export()

    assert len(payload_queries(deployment, seen)) == 1
    rows = deployment.rows("observations")
    assert len(rows) == 20
    assert moments(rows) == {as_of(deployment)}
    named = datetime.fromisoformat(str(as_of(deployment)))
    assert timedelta(0) <= datetime.fromisoformat(moment) - named < timedelta(milliseconds=1)


@pytest.mark.parametrize("encoding", [PARQUET, JSONL], ids=lambda e: e.extension)
def test_parts_with_other_prices_are_read_again(
    deployment: Deployment, langfuse: LangfusePostgres, encoding: Encoding
) -> None:
    deployment.encoding = encoding
    langfuse.add_model("m", input="1")
    moment = break_in_the_second_half(deployment)
    langfuse.set_price("m", "input", "2")

    deployment.export()

    rows = deployment.rows("observations")
    assert [row["input_price"] for row in rows] == ["2"] * 20
    assert moments(rows) == {as_of(deployment)}
    assert datetime.fromisoformat(str(as_of(deployment))) > datetime.fromisoformat(moment)
    assert staged(deployment) == []


def test_the_lookup_adds_next_to_nothing_to_what_clickhouse_reads(
    deployment: Deployment, langfuse: LangfusePostgres
) -> None:
    langfuse.add_model("m", input="1")
    text = "x" * 500
    deployment.insert(
        "observations", *(observation(f"o{n}", internal_model_id="m", output=text) for n in range(3000))
    )
    for run, table in (("plain", OBSERVATIONS), ("priced", PRICED[0])):
        deployment.tables = (table,)
        replace(deployment.exporter(), run_id=run).export(HOUR, [table])

    rows = deployment.server.finished_queries(
        "JSONExtractString(log_comment, 'run') AS run, toFloat64(sum(read_bytes)) AS bytes",
        "run IN ('plain', 'priced') AND JSONExtractString(log_comment, 'purpose') = 'export' GROUP BY run",
    )
    read = {row["run"]: row["bytes"] for row in rows}
    assert read["priced"] / read["plain"] == pytest.approx(1, abs=0.01)
