"""The commands as people and scripts use them, on servers and on the embedded default."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.deployment import PROJECT, Deployment, wait_for
from tests.ingest.sessions import START, event, sessions
from tests.ingest.spans import ROOT, export, span


def run(
    directory: Path, *arguments: str, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """`langfuse-worker` with these arguments, from a script."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("langfuse-worker")), *arguments],
        env={**os.environ, **variables},
        input=stdin,
        capture_output=True,
        text=True,
        cwd=directory,
        check=False,
        timeout=120,
    )


def ingest(deployment: Deployment, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`langfuse-worker ingest` into the deployment."""
    return run(deployment.directory, "ingest", *arguments, "--project", PROJECT, stdin=stdin)


def lines(events: list[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(event) + "\n" for event in events)


def test_ingest_holds_no_more_of_large_lines_than_some_megabytes(deployment: Deployment) -> None:
    line = json.dumps(export(span(ROOT, input="x" * 6_000_000))).encode() + b"\n"
    command = [str(Path(sys.executable).with_name("langfuse-worker")), "ingest", "-", "--project", PROJECT]
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

    ended = ingest(deployment, str(file), "--batch-size", "7")

    assert ended.returncode == 1
    assert ended.stdout.splitlines()[0] == "40 accepted, 4 rejected"
    assert "2         not_an_event" in ended.stdout
    assert "event 41 (trace-create-x-" in ended.stdout
    assert "\x1b[" not in ended.stdout + ended.stderr
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

    ended = ingest(deployment, "-", "--json", "--batch-size", "7", stdin=text)

    assert (ended.returncode, json.loads(ended.stdout)["accepted"]) == (0, 16)
    assert [job.meta["events"] for job in deployment.waiting("ingestion-queue")] == [7, 7, 2]


@pytest.mark.parametrize("first", ["{broken", ""])
def test_a_first_line_that_is_no_json_costs_no_other(deployment: Deployment, first: str) -> None:
    ended = ingest(deployment, "-", stdin=f"{first}\n{lines(list(sessions(2)))}")

    assert ended.stdout.startswith(f"16 accepted, {1 if first else 0} rejected\n")


def test_ingest_takes_otlp(deployment: Deployment) -> None:
    ended = ingest(deployment, "-", stdin=json.dumps(export(span(ROOT))))

    assert (ended.returncode, ended.stdout) == (0, "1 accepted, 0 rejected\n")
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
    deployment: Deployment, arguments: list[str], variables: dict[str, str], code: int, says: str
) -> None:
    ended = run(deployment.directory, *arguments, **variables)

    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_one_line_and_no_consumer_is_left(deployment: Deployment) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(deployment.directory, "consume", LANGFUSE_WORKER_HEALTH_PORT=port)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[1:] == [
        f"langfuse-worker: LANGFUSE_WORKER_HEALTH_PORT={port}: Address already in use"
    ]


def test_a_port_of_the_embedded_redis_in_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        (tmp_path / "redis/port").write_text(str(taken.getsockname()[1]))
        ended = run(tmp_path, "queues", LANGFUSE_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.startswith("langfuse-worker: the embedded Redis cannot start: Port ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_password_of_redis_is_not_shown(deployment: Deployment) -> None:
    ended = run(deployment.directory, "queues", REDIS_CONNECTION_STRING="redis://:hunter2@127.0.0.1:1/0")
    assert ended.returncode == 1
    assert "hunter2" not in ended.stderr + ended.stdout


@pytest.mark.parametrize("command", ["consume", "dead-letters", "delete", "ingest", "queues"])
def test_commands_of_ingestion_do_not_load_dagster(tmp_path: Path, command: str) -> None:
    """Nor anything of exports: it would double the memory of each consumer and the time until it starts."""
    ended = run(tmp_path, command, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert ended.returncode == 0
    imported = {line.split("|")[-1].strip() for line in ended.stderr.splitlines()}
    assert "langfuse_ingest.runtime" in imported
    assert not {"dagster", "langfuse_export.catalog"} & imported


def test_queues_shows_what_waits_and_what_does_not_run_here(deployment: Deployment) -> None:
    deployment.accept(list(sessions(1)))

    ended = run(
        deployment.directory, "queues", "--json", QUEUE_CONSUMER_SCORE_DELETE_QUEUE_IS_ENABLED="false"
    )

    rows = {row["queue"]: row for row in json.loads(ended.stdout)}
    assert (rows["ingestion-queue"]["waiting"], rows["ingestion-queue"]["runs_here"]) == (1, True)
    assert rows["ingestion-queue"]["oldest_age_s"] > 0
    assert rows["score-delete"]["reason"] == "QUEUE_CONSUMER_SCORE_DELETE_QUEUE_IS_ENABLED=false"
    shown = run(deployment.directory, "queues").stdout
    assert "secondary-otel-ingestion-queue" in shown
    assert (
        "dead-letter-retry-queue does not run here: QUEUE_CONSUMER_DEAD_LETTER_RETRY_QUEUE_IS_ENABLED=false"
        in shown
    )
    assert max(len(line.rstrip()) for line in shown.splitlines() if " run here: " not in line) <= 80


def test_dead_letters_are_listed_shown_replayed_and_purged(deployment: Deployment) -> None:
    deployment.clickhouse.execute("ALTER TABLE traces ADD CONSTRAINT no_poison CHECK name != 'poison'")
    try:
        bad = [event("trace-create", START, {"id": f"t{n}", "name": "poison"}) for n in range(2)]
        deployment.ingest(bad)
    finally:
        deployment.clickhouse.execute("ALTER TABLE traces DROP CONSTRAINT no_poison")
    listed = json.loads(run(deployment.directory, "dead-letters", "list", "--json").stdout)
    first, second = sorted(listed, key=lambda letter: letter["arguments"]["entity"][1])
    table = run(deployment.directory, "dead-letters", "list").stdout
    assert first["id"] in table
    assert "traces refuses trace 't0'" in table

    shown = json.loads(run(deployment.directory, "dead-letters", "show", first["id"]).stdout)
    assert shown["segment_uri"].startswith("file://")
    assert "traces refuses trace 't0'" in shown["reason"]
    assert run(deployment.directory, "dead-letters", "replay", first["id"]).returncode == 0
    assert (
        run(deployment.directory, "dead-letters", "purge", "--all").stdout == "1 of 1 dead letters removed\n"
    )
    assert run(deployment.directory, "dead-letters", "purge", second["id"]).returncode == 1

    deployment.work()
    assert deployment.ids("traces") == ["t0"]
    assert run(deployment.directory, "dead-letters", "list").stdout == "No dead letters.\n"


def test_deletions_are_asked_for_and_queued(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(2)))
    arguments = ["delete", "traces", "trace-1-0", "--project", PROJECT]

    refused = run(deployment.directory, *arguments, stdin="n\n")
    assert (refused.returncode, deployment.backlog) == (1, 0)
    assert run(deployment.directory, *arguments, stdin="y\n").stdout.strip() == "queued in trace-delete"
    assert (
        run(deployment.directory, "delete", "scores", "tone-1-1", "--project", PROJECT, "--yes").returncode
        == 0
    )
    deployment.work("trace-delete", "score-delete")

    assert (deployment.ids("traces"), deployment.ids("scores")) == (["trace-1-1"], ["helpful-1-1"])
    assert run(deployment.directory, "delete", "project", PROJECT, "--yes").returncode == 0
    deployment.work("project-delete")
    assert deployment.ids("traces") == []


def test_without_any_server_the_embedded_ones_do(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(lines(list(sessions(3))))
    ended = run(tmp_path, "ingest", "events.jsonl", "--project", "p1")
    assert (ended.returncode, ended.stdout) == (0, "24 accepted, 0 rejected\n")

    environment = {**os.environ, "LANGFUSE_WORKER_HEALTH_PORT": "0"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        consumers = subprocess.Popen(
            [str(Path(sys.executable).with_name("langfuse-worker")), "consume", "--queue", "ingestion-queue"],
            env=environment,
            stdout=out,
            stderr=out,
            cwd=tmp_path,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "queue_batch_finished" in log.read_text() or consumers.poll(), log.read_text)
        os.killpg(consumers.pid, signal.SIGINT)  # as Ctrl-C, which the embedded Redis gets as well
        assert consumers.wait(60) == 0, log.read_text()
        assert "Connection refused" not in log.read_text()
    finally:
        consumers.kill()

    rows = json.loads(run(tmp_path, "queues", "--json").stdout)
    assert {row["queue"]: (row["waiting"], row["failed"]) for row in rows}["ingestion-queue"] == (0, 0)
    status = run(tmp_path, "export", "status", "--json")
    assert {row["project"] for row in json.loads(status.stdout)} == {"p1"}
