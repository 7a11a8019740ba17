"""What a batch looks up costs little, however much is stored, and finds all that there is."""

import pytest

from langfuse_ingest import event_log_index, jobs
from langfuse_ingest.doctor import check_tables
from langfuse_worker.doctor import Finding
from langfuse_worker.doctor.finding import Status
from tests.ingest.deployment import PROJECT, Deployment
from tests.ingest.sessions import START, trace

STORED = 200_000


def test_a_batch_reads_little_of_a_large_log_and_of_a_large_day(deployment: Deployment) -> None:
    deployment.ingest([trace("t", name="first")])
    deployment.clickhouse.execute(
        "INSERT INTO event_log_index (project_id, entity, segment, event_ts) "
        f"SELECT '{PROJECT}', halfMD5(toString(number)), 's', now() FROM numbers({STORED})"
    )
    deployment.clickhouse.execute(
        "INSERT INTO traces (project_id, id, timestamp, event_ts) "
        f"SELECT '{PROJECT}', lower(hex(sipHash128(number))), '{START:%Y-%m-%d %H:%M:%S}', now() "
        f"FROM numbers({STORED})"
    )

    deployment.ingest([trace("t", release="second")])

    where = f"project_id = '{PROJECT}' AND id = 't'"
    rows = deployment.clickhouse.rows(f"SELECT name, release FROM traces FINAL WHERE {where}")
    assert rows == [{"name": "first", "release": "second"}]
    reads = deployment.clickhouse.finished_queries(
        "JSONExtractString(log_comment, 'table') AS source, toFloat64(max(read_rows)) AS most",
        "JSONExtractString(log_comment, 'purpose') IN ('ingest-log', 'ingest-read') GROUP BY source",
    )
    most = {row["source"]: row["most"] for row in reads}
    assert 0 < most["event_log_index"] < STORED / 100
    assert 0 < most["traces"] < STORED / 4


def test_entities_of_one_hash_are_told_apart(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log_index, "entity_hash", lambda key: 1)
    for number in range(3):
        deployment.ingest([trace(f"t{number}", name=f"n{number}")])
    deployment.accept([trace("t", name="elsewhere")], project="other")
    deployment.work()
    deployment.ingest([trace("t1", release="second")])

    names = {row["id"]: (row["name"], row["release"]) for row in deployment.rows("traces")}
    assert names == {
        "t0": ("n0", None),
        "t1": ("n1", "second"),
        "t2": ("n2", None),
        "t": ("elsewhere", None),
    }


def test_hashes_are_those_of_clickhouse(deployment: Deployment) -> None:
    deployment.ingest([trace("é/✓")])
    hashed = event_log_index.HASH
    [row] = deployment.clickhouse.rows(f"SELECT toString({hashed}) AS entity FROM blob_storage_file_log")
    [known] = deployment.clickhouse.rows("SELECT toString(entity) AS entity FROM event_log_index")
    assert known == row


def test_an_index_that_is_missing_is_created(deployment: Deployment) -> None:
    deployment.clickhouse.execute("DROP TABLE event_log_index")
    assert "create event_log_index" in _found(deployment).result

    deployment.ingest([trace("t", name="first")])
    deployment.ingest([trace("t", release="second")])

    assert [(row["name"], row["release"]) for row in deployment.rows("traces")] == [("first", "second")]
    assert (_found(deployment).status, _found(deployment).result) == (Status.OK, "event_log_index is there")


def test_a_deletion_does_not_need_an_index(deployment: Deployment) -> None:
    deployment.ingest([trace("t", name="first")])
    deployment.clickhouse.execute("DROP TABLE event_log_index")
    jobs.delete_traces(PROJECT, ["t"])
    assert deployment.rows("traces") == []


def _found(deployment: Deployment) -> Finding:
    settings = deployment.parts.settings
    return next(finding for finding in check_tables(settings) if finding.what == "index of the event log")
