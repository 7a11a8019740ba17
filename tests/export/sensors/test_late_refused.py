"""Looks for late rows while ClickHouse refuses some of their queries, or takes too long for them."""

import json
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from langfuse_export.sensors import late_time
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import PROJECT, score, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.clickhouse_http import Request as Sent

TIMEOUT = 159


def test_a_project_that_cannot_be_compared_does_not_stop_the_others(deployment: Deployment) -> None:
    _two_projects(deployment)
    deployment.server.break_next(_no_comparison_of(deployment, 5))

    with capture_logs() as logs:
        look = deployment.look()
    deployment.work_off(look, deployment.projects[1])
    again = deployment.look()
    deployment.server.break_next()

    assert [request.tags["langfuse/project"] for request in look.requests] == ["works"]
    [line] = [line for line in logs if line["event"] == "late_rows_compare_failed"]
    assert (line["projectId"], line["table"], line["windows"]) == (PROJECT, "traces", 1)
    assert "refused by the test" in line["error"]
    assert again.requests == []
    assert again.skip_reason is not None
    assert again.skip_reason.startswith(f"could not read {PROJECT} traces; ")
    assert "1 windows wait" in again.skip_reason
    assert [asked[0] for asked in deployment.look().asked] == [deployment.key(5)]


def test_what_could_not_be_compared_comes_after_the_others(deployment: Deployment) -> None:
    _two_projects(deployment)
    deployment.server.break_next(_no_comparison_of(deployment, 5))
    first = _compared(deployment)
    deployment.write("traces", {**trace("later", deployment.hour(3).start), "project_id": "works"})

    second = _compared(deployment)

    assert first == [PROJECT, "works"]
    assert second == ["works", PROJECT]


def test_those_that_cannot_be_compared_take_turns(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _two_projects(deployment)
    deployment.server.break_next(_no_comparison_of(deployment, 5), _no_comparison_of(deployment, 3))
    looks = [_compared(deployment)]
    monkeypatch.setattr(late_time, "COMPARE_IN_S", late_time.TICK_FOR_S)
    looks.append(_compared(deployment))  # which has no time for any, and forgets no turn
    monkeypatch.undo()
    looks.append(_compared(deployment))
    deployment.server.break_next(_no_comparison_of(deployment, 5))
    looks.append(_compared(deployment))
    looks.append(_compared(deployment))

    both = [PROJECT, "works"]
    assert looks == [both, [], both, both, both[::-1]]


@pytest.mark.parametrize(("code", "status"), [(60, 404), (TIMEOUT, 500), (497, 403)])
def test_a_table_that_cannot_be_looked_at_does_not_stop_the_others(
    deployment: Deployment, code: int, status: int
) -> None:
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.look()
    deployment.write("traces", trace("late", deployment.hour(2).start))
    deployment.write("scores", score("late", deployment.hour(2).start))
    no_look = Fault("refuse", "FROM `scores` AS t\nWHERE", code=code, status=status, times=-1)
    deployment.server.break_next(no_look)

    with capture_logs() as logs:
        look = deployment.look()
    deployment.work_off(look)
    again = deployment.look()
    deployment.server.break_next()

    assert look.asked == [(deployment.key(2), deployment.key(2), ["traces"])]
    assert [line["table"] for line in logs if line["event"] == "late_rows_look_failed"] == ["scores"]
    assert again.requests == []
    assert again.skip_reason == "could not read scores; the next tick tries again"
    assert deployment.look().asked == [(deployment.key(2), deployment.key(2), ["scores"])]


def test_no_query_takes_longer_than_its_tick_has(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_time, "TICK_FOR_S", 20)
    monkeypatch.setattr(late_time, "LOOK_FOR_S", 12)
    monkeypatch.setattr(late_time, "CLOCK_FOR_S", 3)
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("scores", score("late", deployment.hour(2).start))
    seen = len(deployment.server.requests)

    assert deployment.look().requests

    sent = deployment.server.requests[seen:]
    [clock] = _of("clock", sent)
    assert clock.parameters["max_execution_time"] == "3"
    looks = [int(request.parameters["max_execution_time"]) for request in _of("late-rows", sent)]
    assert looks == sorted(looks)
    assert 1 <= looks[0] <= 12 / len(looks)
    assert looks[-1] <= 12
    [compared] = _of("late-windows", sent)
    assert 1 <= int(compared.parameters["max_execution_time"]) < 20


def _two_projects(deployment: Deployment) -> None:
    """p1, whose hour 5 has changed since its export, and a project whose hour 3 has."""
    deployment.projects = [deployment.project(id, tables=TRACES) for id in (PROJECT, "works")]
    for project in deployment.projects:
        deployment.export(deployment.key(5), deployment.key(3), project=project)
    deployment.look()
    deployment.write("traces", trace("late", deployment.hour(5).start))
    deployment.write("traces", {**trace("late", deployment.hour(3).start), "project_id": "works"})


def _no_comparison_of(deployment: Deployment, ago: int) -> Fault:
    """ClickHouse takes too long for the fingerprint of that hour."""
    start_ms = deployment.hour(ago).start_ms
    return Fault("refuse", "FROM `traces` AS t FINAL", start_ms, code=TIMEOUT, times=-1)


def _compared(deployment: Deployment) -> list[str]:
    """The projects that a tick compares, in its order."""
    seen = len(deployment.server.requests)
    deployment.look()
    sent = _of("late-windows", deployment.server.requests[seen:])
    return [json.loads(request.parameters["log_comment"])["project"] for request in sent]


def _of(purpose: str, sent: Sequence[Sent]) -> list[Sent]:
    comments = [request.parameters.get("log_comment", "") for request in sent]
    return [request for request, comment in zip(sent, comments, strict=True) if f'"{purpose}"' in comment]
