"""Which errors cut a window into parts, and which do not."""

import json

import pytest

from langfuse_export.errors import WindowError, is_transient, reason_of
from langfuse_export.exporter import NoProgress
from langfuse_worker.blobstore import StoreError
from langfuse_worker.logs import configure_logging
from tests.export.http.exporting import HOUR, Deployment
from tests.export.http.heavy import (
    KEY,
    OBSERVATIONS,
    insert_observations,
    payload_queries,
    staged,
)
from tests.servers.clickhouse_http import Fault
from tests.servers.otlp import OtlpReceiver


@pytest.mark.parametrize(("code", "reason"), [(241, "clickhouse_memory"), (159, "clickhouse_timeout")])
@pytest.mark.parametrize("kind", ["refuse", "exception"])
def test_a_split_is_counted_and_logged_with_its_reason(
    deployment: Deployment,
    otlp: OtlpReceiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    code: int,
    reason: str,
) -> None:
    """Whether the query fails at once or in the middle of its result."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    configure_logging("info")
    insert_observations(deployment)
    deployment.server.break_next(Fault(kind, match="t.input", code=code, after_bytes=10))

    deployment.export(tables=[OBSERVATIONS])

    deployment.telemetry.flush()
    [point] = otlp.named("langfuse.blob_export.split_count")
    assert point.attributes == {"table": "observations", "reason": reason}
    assert (point.count, point.value) == (1, 2)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [split] = [line for line in lines if line["event"] == "blob_export_window_split"]
    assert (split["table"], split["reason"], split["parts"]) == ("observations", reason, 2)
    assert len(deployment.ids("observations")) == 20


@pytest.mark.defect("F2")
def test_wrong_credentials_are_one_attempt_and_no_split(deployment: Deployment) -> None:
    """The fork halves on every error."""
    insert_observations(deployment)
    wrong = deployment.with_(environment={"CLICKHOUSE_PASSWORD": "wrong"})
    seen = len(deployment.server.requests)

    with pytest.raises(WindowError) as failure:
        wrong.export(tables=[OBSERVATIONS])

    assert reason_of(failure.value) == "clickhouse_refused"
    assert len(deployment.server.requests) - seen == 1
    assert deployment.files() == []


@pytest.mark.parametrize("code", [60, 497, 394, 202, 210])
@pytest.mark.defect("F2")
def test_other_errors_of_clickhouse_do_not_split(deployment: Deployment, code: int) -> None:
    insert_observations(deployment)
    deployment.server.break_next(Fault("refuse", match="t.input", code=code, times=-1))
    seen = len(deployment.server.requests)

    with pytest.raises(WindowError):
        deployment.export(tables=[OBSERVATIONS])

    assert len(payload_queries(deployment, seen)) == 1
    assert staged(deployment) == []


@pytest.mark.defect("F2")
def test_an_upload_that_fails_does_not_split(deployment: Deployment) -> None:
    insert_observations(deployment)
    exporter = deployment.exporter()
    exporter.progress = Breaking()
    seen = len(deployment.server.requests)

    with pytest.raises(WindowError, match="the destination broke"):
        exporter.export(HOUR, [OBSERVATIONS])

    assert len(payload_queries(deployment, seen)) == 1
    assert staged(deployment) == []


class Breaking(NoProgress):
    """A destination that fails during the upload."""

    def bytes_read(self, count: int) -> None:
        """See `Progress`."""
        raise StoreError("the destination broke")


def test_what_cannot_be_cut_any_further_fails_and_says_what_to_do(deployment: Deployment) -> None:
    insert_observations(deployment, count=4)
    deployment.server.break_next(Fault("refuse", match="t.input", code=241, times=-1))
    seen = len(deployment.server.requests)

    with pytest.raises(WindowError) as failure:
        deployment.export(tables=[OBSERVATIONS])

    assert (reason_of(failure.value), is_transient(failure.value)) == ("too_heavy", False)
    assert "max_memory_usage = 20000000000 bytes" in str(failure.value)
    assert "Raise LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_MEMORY_USAGE" in str(failure.value)
    assert len(payload_queries(deployment, seen)) == 3  # 4 rows, 2 rows, 1 row


def test_when_the_whole_server_lacks_memory_the_halves_are_left_to_a_retry(deployment: Deployment) -> None:
    """Else a shortage that others cause would cut every window of every project into its smallest parts."""
    insert_observations(deployment)
    shortage = Fault("refuse", match="t.input", code=241, message="(total) memory limit exceeded")
    deployment.server.break_next(shortage)
    seen = len(deployment.server.requests)

    with pytest.raises(WindowError) as failure:
        deployment.export(tables=[OBSERVATIONS])

    assert (reason_of(failure.value), is_transient(failure.value)) == ("clickhouse_memory", True)
    assert len(payload_queries(deployment, seen)) == 1
    assert deployment.export(tables=[OBSERVATIONS]).exported["observations"].file.parts == 2
    assert deployment.files() == [KEY]
