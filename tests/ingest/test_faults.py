"""What goes wrong: every accepted event is in ClickHouse once, or among the dead letters with its reason."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from langfuse_ingest.consumers.batch import Batch, collect
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.event_log import EntityKey, Group
from langfuse_ingest.event_log_index import entity_hash
from langfuse_ingest.events import Entity
from langfuse_ingest.ingest import IngestJob
from langfuse_ingest.queues import queue
from tests.ingest.deployment import Deployment, clear_caches, configure
from tests.ingest.sessions import sessions, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.s3 import REGION, S3Fault, S3Proxy, S3Server
from tests.waiting import wait_for


def log_to(monkeypatch: pytest.MonkeyPatch, s3: S3Server, s3_proxy: S3Proxy) -> None:
    """Keep the event log in a bucket."""
    s3.create_bucket("event-log")
    bucket = {"BUCKET": "event-log", "ENDPOINT": s3_proxy.url, "REGION": REGION}
    keys = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
    variables = {f"LANGFUSE_S3_EVENT_UPLOAD_{name}": value for name, value in {**bucket, **keys}.items()}
    configure(monkeypatch, **variables)


def test_a_job_whose_segment_is_gone_or_no_segment_fails_alone(deployment: Deployment) -> None:
    deployment.accept([trace("good")])
    deployment.store.write_bytes("p1/nonsense", b"not zstd", "text/plain")
    jobs = [NewJob({"segment": "p1/missing"}), NewJob({"segment": "p1/nonsense"}), NewJob({"nonsense": 1})]
    enqueue(deployment.redis.client, queue("ingestion-queue"), jobs)

    deployment.work()

    assert deployment.ids("traces") == ["good"]
    reasons = sorted(letter.reason for letter in deployment.letters)
    assert [reason.split(":")[0] for reason in reasons] == [
        "ObjectNotFoundError",
        "PoisonedJobError",
        "SegmentError",
    ]


def test_a_job_that_is_not_json_fails_alone_and_can_be_listed(deployment: Deployment) -> None:
    deployment.accept([trace("good")])
    redis = deployment.redis.client
    [broken] = enqueue(redis, queue("ingestion-queue"), [NewJob({"segment": "p1/x"})])
    redis.hset(broken.key, "data", b"\x80nonsense")

    deployment.work()

    assert deployment.ids("traces") == ["good"]
    [letter] = deployment.letters
    assert (letter.id, letter.arguments) == (broken.id, {})
    assert "not the arguments of an ingestion job" in letter.reason


def test_an_event_in_the_log_that_nobody_validated_fails_alone(deployment: Deployment) -> None:
    fine = {
        "id": "e",
        "timestamp": "2026-06-01T08:00:00.000000Z",
        "type": "trace-create",
        "body": {"id": "fine"},
    }
    broken = [{**fine, "body": None}, {**fine, "timestamp": None}, {**fine, "body": {"id": "x", "tags": 7}}]
    groups = [Group(Entity.TRACE, f"broken{n}", [event]) for n, event in enumerate(broken)]
    groups.append(Group(Entity.TRACE, "fine", [fine]))
    usages = {"text": {"input": "x"}, "sum": {"input": 2**64 - 1, "output": 1}}
    for id, usage in usages.items():
        event = {**fine, "type": "span-create", "body": {"id": id, "usage": usage}}
        groups.append(Group(Entity.OBSERVATION, id, [event]))
    groups.append(Group(Entity.TRACE, "future", [{**fine, "timestamp": "9999-12-31T00:00:00.000000Z"}]))
    deployment.log_unchecked(*groups)

    deployment.work()

    assert deployment.ids("traces") == ["fine"]
    refused = sorted(letter.arguments["entity"][1] for letter in deployment.letters)
    assert refused == ["broken0", "broken1", "broken2", "future", "sum", "text"]
    assert all("the merge refuses" in letter.reason for letter in deployment.letters)
    assert deployment.backlog == 0


def test_odd_ids_and_texts_arrive_as_they_are(deployment: Deployment) -> None:
    ids = [
        "a'b",
        'a"b',
        "a\\b",
        "tab\there",
        "new\nline",
        "nul\0",
        "\x1b[31m",
        "{x}",
        "日本",
        "x" * 800,
        "%s",
        "--",
        "a/b",
    ]
    deployment.ingest([trace(id, name=f"name of {id}", input={"text": id}) for id in ids])
    deployment.ingest([trace(id, userId="u") for id in ids])

    rows = {row["id"]: row for row in deployment.rows("traces")}
    assert sorted(rows) == sorted(ids)
    assert all(row["name"] == f"name of {id}" and row["user_id"] == "u" for id, row in rows.items())


def test_an_insert_whose_answer_is_lost_is_not_stored_twice(deployment: Deployment) -> None:
    window = "MODIFY SETTING non_replicated_deduplication_window"
    deployment.clickhouse.execute(f"ALTER TABLE traces {window} = 100")
    deployment.clickhouse.break_next(Fault("cut", match="INSERT INTO traces", times=2))

    deployment.ingest([trace(f"t{n}") for n in range(20)])

    deployment.clickhouse.execute(f"ALTER TABLE traces {window} = 0")
    assert deployment.count("traces") == 20
    assert deployment.letters == []


def test_a_job_is_not_done_before_its_rows_are_stored(deployment: Deployment) -> None:
    deployment.accept([trace("t")])
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1))

    deployment.work()

    assert deployment.ids("traces") == []
    assert deployment.backlog == 1
    deployment.clickhouse.break_next()
    deployment.make_retries_due()
    deployment.work()
    assert deployment.ids("traces") == ["t"]
    assert (deployment.backlog, deployment.letters) == (0, [])


@pytest.mark.parametrize(
    "code", [75, 201, 236, 499, 745, 1001]
)  # disk, quota, shutdown, object store, overload, disk
def test_trouble_of_the_server_is_not_blamed_on_rows(deployment: Deployment, code: int) -> None:
    deployment.accept([trace("t")])
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1, code=code))

    deployment.work()

    assert (deployment.backlog, deployment.letters) == (1, [])


def test_a_batch_may_hold_events_of_any_months(deployment: Deployment) -> None:
    months = [f"{2000 + n // 12}-{n % 12 + 1:02}" for n in range(130)]

    deployment.ingest([trace(month, timestamp=f"{month}-01T00:00:00Z") for month in months], size=130)

    assert deployment.ids("traces") == months
    assert len(deployment.ids("events_full")) == len(months)


def test_attempts_back_off_as_langfuse_does_and_end_as_a_dead_letter(deployment: Deployment) -> None:
    assert [queue("ingestion-queue").delays, queue("trace-delete").delays] == [(5, 10, 20, 40, 80), (30,)]
    deployment.accept([trace("t")])
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1))

    attempts = 0
    while not deployment.letters:
        deployment.work()
        deployment.make_retries_due()
        attempts += 1

    assert attempts == 6
    [letter] = deployment.letters
    assert letter.reason.startswith("ClickHouseError: ")
    assert "refused by the test" in letter.reason


def test_a_down_clickhouse_costs_attempts_once_and_then_jobs_wait(deployment: Deployment) -> None:
    deployment.clickhouse.break_next(Fault("refuse", match="", status=503, code=202, times=-1))
    with deployment.consumers("--queue", "ingestion-queue", ready=False) as consumers:
        deployment.accept_all([trace(f"t{n}") for n in range(30)], size=1)
        # While consumers look for ClickHouse again and again, the jobs that failed have become due.
        wait_for(
            lambda: sum("clickhouse_unavailable" in line for line in consumers.lines) >= 5,
            consumers.log.read_text,
        )
        status, answer = consumers.get("/readyz")
        assert (status, list(answer["missing"])) == (503, ["clickhouse"])
        assert consumers.get("/healthz")[0] == 200
        count = len(consumers.get("/healthz")[1]["consumers"])
        failed = [line for line in consumers.lines if "queue_job_failed" in line]
        assert min(json.loads(line)["attemptsLeft"] for line in failed) >= 6 - count

        deployment.clickhouse.break_next()
        deployment.wait_until_empty()

    assert len(deployment.ids("traces")) == 30
    assert deployment.letters == []


@pytest.mark.parametrize("status", [0, 403, 503])
def test_a_down_event_log_costs_attempts_once_and_then_jobs_wait(
    deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    log_to(monkeypatch, s3, s3_proxy)
    deployment.accept_all([trace(f"t{n}") for n in range(30)], size=1)
    s3_proxy.faults = [S3Fault(method, status=status) for method in ("GET", "HEAD", "PUT")]

    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        # While consumers look for the bucket again and again, the jobs that failed have become due.
        wait_for(
            lambda: sum("event_log_unavailable" in line for line in consumers.lines) >= 2,
            consumers.log.read_text,
        )
        count = len(consumers.get("/healthz")[1]["consumers"])
        failed = [line for line in consumers.lines if "queue_job_failed" in line]
        assert min(json.loads(line)["attemptsLeft"] for line in failed) >= 6 - count
        s3_proxy.faults = []
        deployment.wait_until_empty()

    assert len(deployment.ids("traces")) == 30
    assert deployment.letters == []


def test_a_segment_that_may_not_be_read_does_not_hold_up_others(
    deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_to(monkeypatch, s3, s3_proxy)
    segment = deployment.accept([trace("refused")]).segment
    deployment.accept([trace("t")])
    # As S3 answers of what is missing, to those who may not list the bucket.
    s3_proxy.faults = [S3Fault("GET", str(segment), 403), S3Fault("HEAD", "ping", 403, times=1)]

    with deployment.consumers("--queue", "ingestion-queue"):
        deployment.wait_until_empty()

    assert deployment.ids("traces") == ["t"]
    assert [letter.arguments["segment"] for letter in deployment.letters] == [segment]
    assert "langfuse-ping" in s3.keys("event-log")


def test_a_job_lost_between_queue_and_consumer_is_put_back(deployment: Deployment) -> None:
    deployment.accept([trace("t")])
    queue_ = deployment.rq_queue("ingestion-queue")
    deployment.redis.client.lmove(queue_.key, queue_.intermediate_queue_key, "LEFT", "RIGHT")

    with deployment.consumers("--queue", "ingestion-queue"):
        wait_for(lambda: deployment.ids("traces") == ["t"], lambda: str(deployment.backlog))


@pytest.mark.parametrize(("first", "batches"), [(20 << 20, [4, 4, 2]), (0, [5, 4, 1])])
def test_a_batch_is_bounded_by_the_bytes_of_its_events(
    deployment: Deployment, first: int, batches: list[int]
) -> None:
    segments = [deployment.accept([trace(f"t{n}")]).segment for n in range(10)]
    redis = deployment.redis.client
    deployment.rq_queue("ingestion-queue").empty()
    sizes = [first, *[20 << 20] * 9]
    jobs = [
        NewJob({"segment": segment}, {"events": 1, "bytes": size})
        for segment, size in zip(segments, sizes, strict=True)
    ]
    enqueue(redis, queue("ingestion-queue"), jobs)

    with capture_logs() as lines:
        deployment.work()

    assert [line["jobs"] for line in lines if line["event"] == "queue_batch_finished"] == batches
    assert deployment.ids("traces") == [f"t{n}" for n in range(10)]
    assert (deployment.backlog, deployment.letters) == (0, [])


def test_jobs_that_do_not_fit_into_a_batch_wait_where_they_were(deployment: Deployment) -> None:
    jobs = [NewJob({"segment": f"p1/{n}"}, {"events": 1, "bytes": 30 << 20}) for n in range(6)]
    ids = [job.id for job in enqueue(deployment.redis.client, queue("ingestion-queue"), jobs)]

    taken = collect(deployment.rq_queue("ingestion-queue"), Batch([], 5000), 0)

    assert [job.id for job in taken] == ids[:3]
    assert deployment.rq_queue("ingestion-queue").job_ids == ids[3:]
    assert deployment.backlog == 6


def test_a_segment_that_is_ingested_again_changes_nothing(deployment: Deployment) -> None:
    receipt = deployment.accept(list(sessions(5)))
    deployment.work()
    before = {table: deployment.rows(table) for table in ("traces", "observations", "scores", "events_full")}
    assert receipt.segment is not None

    for _ in range(3):
        deployment.parts.ingestion.ingest([IngestJob(receipt.segment)] * 2)

    assert {table: deployment.rows(table) for table in before} == before


def test_a_segment_that_lacks_what_the_index_says_of_it_holds_up_nobody(deployment: Deployment) -> None:
    deployment.ingest([trace("other")])
    [key] = deployment.parts.event_log.keys_of("p1")
    deployment.clickhouse.execute(
        "INSERT INTO event_log_index (project_id, entity, segment) "
        f"VALUES ('p1', {entity_hash(EntityKey('p1', Entity.TRACE, 'a'))}, '{key}')"
    )

    deployment.ingest([trace("a"), trace("b")])

    assert deployment.ids("traces") == ["a", "b", "other"]
    assert deployment.letters == []


def test_a_segment_that_cannot_be_read_holds_up_its_entities_alone(deployment: Deployment) -> None:
    deployment.ingest([trace("held up")])
    log = deployment.parts.event_log
    [key] = log.keys_of("p1")
    file = Path(log.uri(key).removeprefix("file://"))
    file.unlink()
    file.symlink_to(file)
    clear_caches()
    for id in ("a", "held up", "b"):
        deployment.accept([trace(id, name="new")])

    deployment.work()

    assert [(row["id"], row["name"]) for row in deployment.rows("traces")] == [
        ("a", "new"),
        ("b", "new"),
        ("held up", ""),
    ]
    assert (deployment.backlog, deployment.letters) == (1, [])


def test_a_job_that_fails_for_reasons_nobody_thought_of_fails_alone(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, LANGFUSE_MIGRATION_V4_WRITE_MODE="events_only")
    deployment.clickhouse.execute(
        "INSERT INTO events_full (project_id, trace_id, span_id, start_time, created_at, metadata_names) "
        "VALUES ('p1', 't', 'o', '2026-06-01 08:00:00', '2026-06-01', ['a name without a value'])"
    )
    odd = {"id": "e", "timestamp": "2026-06-01T08:00:00Z", "type": "span-update", "body": {"id": "o"}}
    for events in ([trace("a")], [odd], [trace("b")], [trace("c")]):
        deployment.accept(events)

    deployment.work()

    assert deployment.ids("events_full") == ["o", "t-a", "t-b", "t-c"]
    assert (deployment.backlog, deployment.letters) == (1, [])
