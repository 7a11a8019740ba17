"""The commands as people and scripts use them, on servers and on the embedded default."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.command import WORKER, Ended, langfuse_worker
from tests.ingest.deployment import PROJECT, Consumers, Deployment
from tests.ingest.sessions import START, event, sessions, trace
from tests.ingest.spans import ROOT, export, span
from tests.servers.processes import kill_tree
from tests.waiting import wait_for


def ingest(*arguments: str, stdin: str = "") -> Ended:
    """`langfuse-worker ingest` into the project."""
    return langfuse_worker("ingest", *arguments, "--project", PROJECT, stdin=stdin)


def lines(events: list[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(event) + "\n" for event in events)


def test_ingest_holds_no_more_of_large_lines_than_some_megabytes(deployment: Deployment) -> None:
    line = json.dumps(export(span(ROOT, input="x" * 6_000_000))).encode() + b"\n"
    command = [WORKER, "ingest", "-", "--project", PROJECT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        for _ in range(6):
            process.stdin.write(line)
        process.stdin.flush()
        # More may come, but what is there is too much to be held.
        wait_for(lambda: len(deployment.waiting("otel-ingestion-queue")) == 6, lambda: str(process.poll()))
        process.stdin.close()
        assert process.wait(60) == 0


def test_ingest_reads_json_lines_and_reports_what_was_rejected(deployment: Deployment) -> None:
    bad = [
        {"id": 1},
        event("trace-create", START, {"id": "x", "name": 5}),
        event("nonsense", START, {"id": "x"}),
    ]
    file = deployment.directory / "events.jsonl"
    file.write_text(lines(list(sessions(5))) + lines(bad) + "{broken\n\n")

    ended = ingest(str(file), "--batch-size", "7")

    assert ended.code == 1
    assert ended.out.splitlines()[0] == "40 accepted, 4 rejected"
    assert "2         not_an_event" in ended.out
    assert "event 41 (trace-create-x-" in ended.out
    assert "\x1b[" not in ended.out + ended.err
    deployment.work()
    assert len(deployment.ids("traces")) == 5


@pytest.mark.parametrize("shape", ["batch", "pretty batch", "list", "lines"])
def test_ingest_takes_batches_from_stdin(deployment: Deployment, shape: str) -> None:
    events = list(sessions(2))
    text = {
        "batch": json.dumps({"batch": events}),
        "pretty batch": json.dumps({"batch": events, "metadata": {}}, indent=2),
        "list": json.dumps(events),
        "lines": lines([{"batch": events[:9]}, {"batch": events[9:]}]),
    }[shape]

    ended = ingest("-", "--json", "--batch-size", "7", stdin=text)

    assert (ended.code, ended.json["accepted"]) == (0, 16)
    assert [job.meta["events"] for job in deployment.waiting("ingestion-queue")] == [7, 7, 2]


@pytest.mark.parametrize("first", ["{broken", ""])
def test_a_first_line_that_is_no_json_costs_no_other(deployment: Deployment, first: str) -> None:
    ended = ingest("-", stdin=f"{first}\n{lines(list(sessions(2)))}")

    assert ended.out.startswith(f"16 accepted, {1 if first else 0} rejected\n")


def test_ingest_takes_otlp(deployment: Deployment) -> None:
    ended = ingest("-", stdin=json.dumps(export(span(ROOT))))

    assert (ended.code, ended.out) == (0, "1 accepted, 0 rejected\n")
    deployment.work("otel-ingestion-queue")
    assert deployment.ids("observations") == [ROOT]


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (["ingest", "missing.jsonl", "--project", "p"], {}, 2, "missing.jsonl: no such file"),
        (["ingest", "-", "--project", ""], {}, 2, "--project is empty"),
        (["ingest", ".", "--project", "p"], {}, 2, ".: is no file"),
        (["delete", "project", "", "--yes"], {}, 2, "the project id is empty"),
        (["delete", "traces", "t", "--project", "", "--yes"], {}, 2, "the project id is empty"),
        (["queues"], {"REDIS_PORT": "1"}, 1, "Redis at 127.0.0.1:1: "),
        (["queues"], {"REDIS_CONNECTION_STRING": "nonsense"}, 2, "REDIS_CONNECTION_STRING=***: "),
        (["consume", "--queue", "nope"], {}, 2, "nope is not a queue; `langfuse-worker queues` lists them"),
        (["consume", "--queue", "ingestion-queue-1"], {}, 2, "is a shard; --queue ingestion-queue"),
        (["consume", "--queue", "dead-letter-retry-queue"], {}, 2, "is not consumed here"),
        (["dead-letters", "purge"], {}, 2, "name dead letters, or say --all"),
        (["dead-letters", "list", "--queue", "nope"], {}, 2, "nope is not a queue"),
        (["dead-letters", "show", "nope"], {}, 1, "no such dead letter: nope"),
        (
            ["queues"],
            {"LANGFUSE_DATA_RETENTION": "p=soon"},
            2,
            "LANGFUSE_DATA_RETENTION='p=soon': must be project=",
        ),
        (
            ["queues"],
            {"LANGFUSE_MIGRATION_V4_WRITE_MODE": "both"},
            2,
            "LANGFUSE_MIGRATION_V4_WRITE_MODE='both'",
        ),
    ],
)
def test_errors_are_one_line_that_names_the_setting(
    deployment: Deployment, arguments: list[str], variables: dict[str, Any], code: int, says: str
) -> None:
    ended = langfuse_worker(*arguments, **variables)

    assert ended.code == code, ended.err
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_a_port_in_use_is_one_line_and_no_consumer_is_left(deployment: Deployment) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = langfuse_worker("consume", LANGFUSE_WORKER_HEALTH_PORT=port)
    assert ended.code == 2
    assert ended.err.splitlines()[1:] == [
        f"langfuse-worker: LANGFUSE_WORKER_HEALTH_PORT={port}: Address already in use"
    ]


def test_a_port_of_the_embedded_redis_in_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        (tmp_path / "redis/port").write_text(str(taken.getsockname()[1]))
        ended = langfuse_worker("queues", LANGFUSE_HOME=str(tmp_path))
    assert ended.code == 2
    assert ended.err.startswith("langfuse-worker: the embedded Redis cannot start: Port ")
    assert len(ended.err.splitlines()) == 1


def test_a_password_of_redis_is_not_shown(deployment: Deployment) -> None:
    ended = langfuse_worker("queues", REDIS_CONNECTION_STRING="redis://:hunter2@127.0.0.1:1/0")
    assert ended.code == 1
    assert "hunter2" not in ended.err + ended.out


@pytest.mark.parametrize("command", ["consume", "dead-letters", "delete", "ingest", "queues"])
def test_commands_of_ingestion_do_not_load_dagster(tmp_path: Path, command: str) -> None:
    """Nor anything of exports: it would double the memory of each consumer and the time until it starts."""
    ended = langfuse_worker(command, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == 0
    imported = {line.split("|")[-1].strip() for line in ended.err.splitlines()}
    assert "langfuse_ingest.runtime" in imported
    assert not {"dagster", "langfuse_export.catalog"} & imported


def test_queues_shows_what_waits_and_what_does_not_run_here(deployment: Deployment) -> None:
    deployment.accept(list(sessions(1)))

    ended = langfuse_worker("queues", "--json", QUEUE_CONSUMER_SCORE_DELETE_QUEUE_IS_ENABLED="false")

    rows = {row["queue"]: row for row in ended.json}
    assert (rows["ingestion-queue"]["waiting"], rows["ingestion-queue"]["runs_here"]) == (1, True)
    assert rows["ingestion-queue"]["oldest_age_s"] > 0
    assert rows["score-delete"]["reason"] == "QUEUE_CONSUMER_SCORE_DELETE_QUEUE_IS_ENABLED=false"
    shown = langfuse_worker("queues").out
    assert "secondary-otel-ingestion-queue" in shown
    assert (
        "dead-letter-retry-queue does not run here: QUEUE_CONSUMER_DEAD_LETTER_RETRY_QUEUE_IS_ENABLED=false"
        in shown
    )
    assert max(len(line.rstrip()) for line in shown.splitlines() if " run here: " not in line) <= 80


def test_dead_letters_are_listed_shown_replayed_and_purged(poison: Deployment) -> None:
    poison.ingest([trace(f"t{n}", name="poison") for n in range(2)])
    poison.take_poison()
    listed = langfuse_worker("dead-letters", "list", "--json").json
    first, second = sorted(listed, key=lambda letter: letter["arguments"]["entity"][1])
    table = langfuse_worker("dead-letters", "list").out
    assert first["id"] in table
    assert "traces refuses trace 't0'" in table

    shown = langfuse_worker("dead-letters", "show", first["id"]).json
    assert shown["segment_uri"].startswith("file://")
    assert "traces refuses trace 't0'" in shown["reason"]
    assert langfuse_worker("dead-letters", "replay", first["id"]).code == 0
    assert langfuse_worker("dead-letters", "purge", "--all").out == "1 of 1 dead letters removed\n"
    assert langfuse_worker("dead-letters", "purge", second["id"]).code == 1

    poison.work()
    assert poison.ids("traces") == ["t0"]
    assert langfuse_worker("dead-letters", "list").out == "No dead letters.\n"


def test_deletions_are_asked_for_and_queued(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(2)))
    arguments = ["delete", "traces", "trace-1-0", "--project", PROJECT]

    refused = langfuse_worker(*arguments, stdin="n\n")
    assert (refused.code, deployment.backlog) == (1, 0)
    assert langfuse_worker(*arguments, stdin="y\n").out.strip() == "queued in trace-delete"
    assert langfuse_worker("delete", "scores", "tone-1-1", "--project", PROJECT, "--yes").code == 0
    deployment.work("trace-delete", "score-delete")

    assert (deployment.ids("traces"), deployment.ids("scores")) == (["trace-1-1"], ["helpful-1-1"])
    assert langfuse_worker("delete", "project", PROJECT, "--yes").code == 0
    deployment.work("project-delete")
    assert deployment.ids("traces") == []


@contextmanager
def embedded_consumers(directory: Path, queue: str) -> Iterator[Consumers]:
    """The consumers of a queue where no server is named, in a session of their own."""
    environment = {**os.environ, "LANGFUSE_WORKER_HEALTH_PORT": "0"}
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [WORKER, "consume", "--queue", queue],
            env=environment,
            stdout=out,
            stderr=out,
            cwd=directory,
            start_new_session=True,
        )
    try:
        yield Consumers(process, log)
    finally:
        kill_tree(process.pid)
        process.wait()


def test_without_any_server_the_embedded_ones_do(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(lines(list(sessions(3))))
    ended = langfuse_worker("ingest", "events.jsonl", "--project", "p1")
    assert (ended.code, ended.out) == (0, "24 accepted, 0 rejected\n")

    with embedded_consumers(tmp_path, "ingestion-queue") as consumers:
        log, process = consumers.log, consumers.process
        wait_for(lambda: "queue_batch_finished" in log.read_text() or process.poll(), log.read_text)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C, which the embedded Redis gets as well
        assert process.wait(60) == 0, log.read_text()
        assert "Connection refused" not in log.read_text()

    rows = langfuse_worker("queues", "--json").json
    assert {row["queue"]: (row["waiting"], row["failed"]) for row in rows}["ingestion-queue"] == (0, 0)
    status = langfuse_worker("export", "status", "--json")
    assert {row["project"] for row in status.json} == {"p1"}


def test_consumers_whose_embedded_redis_cannot_be_started_again_stop_and_say_why(tmp_path: Path) -> None:
    with embedded_consumers(tmp_path, "trace-delete") as consumers, socket.socket() as taken:
        log = consumers.log
        wait_for(lambda: "consumers_started" in log.read_text(), log.read_text)
        file = tmp_path / ".langfuse/redis/port"
        redis = Redis(port=int(file.read_text()))
        taken.bind(("127.0.0.1", 0))
        file.write_text(str(taken.getsockname()[1]))

        redis.shutdown(nosave=True)

        assert consumers.process.wait(60) == 2, log.read_text()
        assert consumers.lines[-1].startswith("langfuse-worker: the embedded Redis cannot start: Port ")
