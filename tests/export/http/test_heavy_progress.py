"""Parts of a heavy window that have been read survive failures, unless they are no longer true."""

import pytest

from langfuse_export.errors import WindowError, is_transient, reason_of
from langfuse_export.exporter import NoProgress
from langfuse_worker.blobstore import StoreError
from tests.export.http.exporting import HOUR, Deployment
from tests.export.http.heavy import (
    KEY,
    OBSERVATIONS,
    SECOND_PART,
    TOO_MUCH_AT_ONCE,
    exporter_of_parts,
    fail_in_the_second_part,
    insert_observations,
    killed_worker,
    payload_queries,
    staged,
    wait_for_query,
)
from tests.rows import observation
from tests.servers.clickhouse_http import Fault


@pytest.mark.defect("F1")
def test_progress_survives_a_failure_in_the_second_half(deployment: Deployment) -> None:
    """The fork reads the first half again."""
    insert_observations(deployment)
    assert is_transient(fail_in_the_second_part(deployment))
    assert len(staged(deployment)) == 2
    assert staged(deployment) == deployment.files()  # no object, no manifest
    seen = len(deployment.server.requests)

    result = deployment.export(tables=[OBSERVATIONS])

    [again] = payload_queries(deployment, seen)
    assert SECOND_PART in again.sql
    assert len(deployment.ids("observations")) == 20
    assert result.exported["observations"].file.parts == 2
    assert deployment.files() == [KEY]


@pytest.mark.defect("F1")
def test_another_worker_goes_on_where_one_was_killed(deployment: Deployment) -> None:
    insert_observations(deployment)
    deployment.server.break_next(TOO_MUCH_AT_ONCE, Fault("stall", match=SECOND_PART))
    seen = len(deployment.server.requests)
    with killed_worker(deployment):
        wait_for_query(deployment, SECOND_PART, since=seen)
    assert len(staged(deployment)) == 2
    deployment.server.break_next()
    seen = len(deployment.server.requests)

    deployment.export(tables=[OBSERVATIONS])

    [again] = payload_queries(deployment, seen)
    assert SECOND_PART in again.sql
    assert len(deployment.ids("observations")) == 20
    assert staged(deployment) == []


@pytest.mark.defect("F1")
def test_a_part_whose_rows_changed_since_is_read_again(deployment: Deployment) -> None:
    insert_observations(deployment)
    fail_in_the_second_part(deployment)
    deployment.insert("observations", observation("o001", version=2, input="newer"))

    deployment.export(tables=[OBSERVATIONS])

    inputs = {row["id"]: row["input"] for row in deployment.rows("observations")}
    assert inputs["o001"] == "newer"
    assert len(inputs) == 20
    assert deployment.files() == [KEY]


def test_parts_of_other_columns_or_formats_are_not_used(deployment: Deployment) -> None:
    insert_observations(deployment)
    fail_in_the_second_part(deployment)
    narrow = OBSERVATIONS.only(columns=["input"])
    changed = deployment.with_(tables=[narrow])

    changed.export(tables=[narrow])

    assert list(changed.rows("observations")[0]) == narrow.column_names
    assert changed.files() == ["p1/manifests/2026-06-01T13-00-00.json", KEY]


@pytest.mark.parametrize("damage", ["delete", "overwrite"])
def test_a_part_that_is_lost_or_damaged_is_read_again_by_the_retry(
    deployment: Deployment, damage: str
) -> None:
    insert_observations(deployment)
    fail_in_the_second_part(deployment)
    part = deployment.blobs / staged(deployment)[0]
    part.unlink() if damage == "delete" else part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(WindowError) as failure:
        deployment.export(tables=[OBSERVATIONS])
    assert (reason_of(failure.value), is_transient(failure.value)) == ("verification", True)
    assert KEY not in deployment.files()

    deployment.export(tables=[OBSERVATIONS])

    assert len(deployment.ids("observations")) == 20
    assert deployment.files() == [KEY]


def test_all_parts_that_are_lost_are_read_again_by_one_retry(deployment: Deployment) -> None:
    """A removal that the store broke off, say, leaves the plan and some of its parts."""
    insert_observations(deployment)
    exporter = exporter_of_parts(deployment, rows=7)

    class BreaksInTheThirdPart(NoProgress):
        """A store that fails once two parts and the plan are there."""

        def bytes_read(self, count: int) -> None:
            """See `Progress`."""
            if len(staged(deployment)) == 3:
                raise StoreError("the destination broke")

    exporter.progress = BreaksInTheThirdPart()
    with pytest.raises(WindowError, match="the destination broke"):
        exporter.export(HOUR, [OBSERVATIONS])
    for part in staged(deployment)[:2]:
        (deployment.blobs / part).unlink()
    with pytest.raises(WindowError, match="a part that was read is gone"):
        deployment.export(tables=[OBSERVATIONS])
    seen = len(deployment.server.requests)

    deployment.export(tables=[OBSERVATIONS])

    assert len(payload_queries(deployment, seen)) == 2
    assert len(deployment.ids("observations")) == 20
    assert deployment.files() == [KEY]
