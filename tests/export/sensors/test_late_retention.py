"""Objects outlive the rows that retention deletes from ClickHouse."""

import pytest

from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import trace

RECENT, OLD = 5, 60  # hours ago; of three days, two are compared


@pytest.fixture
def exported(deployment: Deployment) -> Deployment:
    """A project that keeps three days, with a trace in each of two exported windows."""
    deployment.tables = TRACES
    deployment.projects = [deployment.project(retention_days=3)]
    deployment.write("traces", *[trace(f"t{ago}", deployment.hour(ago).start) for ago in (RECENT, OLD)])
    for ago in (RECENT, OLD):
        assert deployment.export(deployment.key(ago), deployment.key(ago)).success
    assert deployment.look().requests == []
    return deployment


def test_what_retention_may_have_deleted_is_not_exported_again(exported: Deployment) -> None:
    exported.server.execute("DELETE FROM traces WHERE true")

    exported.let_audit_be_due()
    look = exported.look()
    exported.work_off(look)

    assert look.asked == [(exported.key(RECENT), exported.key(RECENT), ["traces"])]
    assert exported.ids("traces", exported.hour(RECENT)) == []
    assert exported.ids("traces", exported.hour(OLD)) == [f"t{OLD}"]


def test_what_waits_is_forgotten_once_retention_may_have_deleted_it(exported: Deployment) -> None:
    exported.projects = [exported.project()]
    del exported.defs
    exported.write("traces", trace("late", exported.hour(OLD).start))
    assert [asked[0] for asked in exported.look().asked] == [exported.key(OLD)]

    exported.projects = [exported.project(retention_days=3)]
    del exported.defs

    assert exported.look().requests == []
