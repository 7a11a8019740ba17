"""Windows that are exported again: how manifests count, and how a consumer notices."""

from datetime import datetime

from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency
from tests.export.http.exporting import HOUR, JSONL, Deployment, read_rows
from tests.export.http.following import follow_of_the_docs
from tests.rows import PROJECT, event, score, trace
from tests.servers.s3 import S3Server


def _server_clock(deployment: Deployment) -> datetime:
    [row] = deployment.server.rows("SELECT toString(now64(3, 'UTC')) AS now")
    return datetime.fromisoformat(f"{row['now']}+00:00")


def test_manifests_count_their_revisions_and_say_why(deployment: Deployment) -> None:
    deployment.export()
    assert (deployment.manifest().revision, deployment.manifest().mode) == (1, "catchup")

    exporter = deployment.exporter()
    exporter.mode = "late"
    assert exporter.export(HOUR, deployment.project.tables).revision == 2

    assert (deployment.manifest().revision, deployment.manifest().mode) == (2, "late")


def test_a_manifest_that_somebody_else_has_written_is_replaced_by_a_first_one(deployment: Deployment) -> None:
    path = deployment.blobs / deployment.project.manifest_key(HOUR)
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 1, "projectId": "p1", "tables": [], "files": []}')

    assert deployment.export().revision == deployment.manifest().revision == 1


def test_a_day_that_replaces_its_last_hour_counts_on(deployment: Deployment) -> None:
    day = Frequency.DAILY.window(HOUR.start.replace(hour=0))
    deployment.export(Frequency.HOURLY.window(HOUR.start.replace(hour=23)))

    deployment.with_(frequency=Frequency.DAILY).export(day)

    assert deployment.manifest(day).revision == 2


def test_the_files_of_one_table_are_replaced_beside_those_of_the_others(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t"))
    deployment.insert("scores", score("s"))
    deployment.export()
    first = {file.table: file for file in deployment.manifest().files}
    deployment.insert("scores", score("late"))

    deployment.export(tables=[TABLES["scores"]])

    second = {file.table: file for file in deployment.manifest().files}
    assert second["scores"].row_count == 2
    assert second.pop("scores").read_at > first.pop("scores").read_at
    assert second == first


def test_a_file_says_when_its_reading_began_by_the_clock_of_clickhouse(deployment: Deployment) -> None:
    before = _server_clock(deployment)
    deployment.export()
    after = _server_clock(deployment)

    for file in deployment.manifest().files:
        assert before <= datetime.fromisoformat(file.read_at) <= after


def test_equal_fingerprints_mean_that_nothing_has_changed(deployment: Deployment) -> None:
    """Late rows, new versions, tombstones and lightweight deletes each give another one."""

    def fingerprints() -> dict[str, str | None]:
        deployment.export()
        return {file.table: file.source_fingerprint for file in deployment.manifest().files}

    deployment.insert("traces", trace("t1"), trace("t2"), trace("t3"))
    deployment.insert("events_full", event("e1"))
    seen = [fingerprints()]
    assert fingerprints() == seen[0]

    deployment.insert("traces", trace("t4"))
    seen.append(fingerprints())
    deployment.insert("traces", trace("t1", version=2, name="new"))
    seen.append(fingerprints())
    deployment.insert("traces", trace("t2", version=2, deleted=True))
    seen.append(fingerprints())
    deployment.server.execute("DELETE FROM traces WHERE id = 't3'")
    seen.append(fingerprints())

    assert len({files["traces"] for files in seen}) == 5
    assert len({files["observations_v2"] for files in seen}) == 1
    deployment.server.execute("OPTIMIZE TABLE traces FINAL")
    assert fingerprints() == seen[-1]


def test_a_consumer_of_manifests_sees_every_revision(deployment: Deployment, s3: S3Server) -> None:
    follow, bucket = follow_of_the_docs(), "followed"
    s3.create_bucket(bucket)
    exports = deployment.with_(destination=s3.store_config(bucket, "langfuse/"), encoding=JSONL)
    seen: dict[str, str] = {}

    def poll() -> dict[str, list[str]]:
        """What a poll loads: ids by object."""
        loaded: dict[str, list[str]] = {}

        def load(key: str, content: bytes | None) -> None:
            loaded[key] = sorted(row["id"] for row in read_rows(content, JSONL)) if content else []

        follow(s3.client, bucket, f"langfuse/{PROJECT}/", seen, load)
        return loaded

    traces, scores = (f"langfuse/{PROJECT}/{name}/2026-06-01T13-00-00.jsonl" for name in ("traces", "scores"))
    exports.insert("traces", trace("t"))
    exports.export()
    first = poll()
    assert len(first) == 4
    assert first[traces] == ["t"]
    assert poll() == {}

    exports.insert("scores", score("late"))
    exports.export(tables=[TABLES["scores"]])
    assert poll() == {scores: ["late"]}

    skipping = exports.with_(skip_empty=True)
    skipping.insert("scores", *(score(id, version=2, deleted=True) for id in ("s", "late")))
    skipping.export(tables=[TABLES["scores"]])
    assert poll() == {scores: []}
    assert poll() == {}
    skipping.insert("scores", score("again"))
    skipping.export(tables=[TABLES["scores"]])
    assert poll() == {scores: ["again"]}

    s3.client.put_object(Bucket=bucket, Key=traces, Body=b"an export that has not written its manifest")
    seen.clear()
    assert traces not in poll()
    exports.export()
    assert poll()[traces] == ["t"]
