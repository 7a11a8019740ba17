"""Runs of projects whose objects ClickHouse writes itself."""

from datetime import timedelta

from langfuse_worker.clickhouse import Query, QueryComment
from tests.export.dagster.deployment import START, Deployment
from tests.rows import trace
from tests.servers.s3 import S3Server

BUCKET = "server-mode"
CREATE = """CREATE NAMED COLLECTION archive
AS url = '{url}/server-mode/' NOT OVERRIDABLE, access_key_id = 'key', secret_access_key = 'secret'"""


def test_the_windows_of_a_day_are_written_from_one_read_and_pass_their_checks(
    deployment: Deployment, s3: S3Server
) -> None:
    s3.create_bucket(BUCKET)
    create = Query(CREATE.format(url=s3.url), QueryComment(purpose="test"))
    deployment.engine.execute(create)
    project = deployment.project(destination=s3.store_config(BUCKET), named_collection="archive")
    deployment.projects = [project]
    deployment.insert("traces", trace("a", START), trace("b", START + timedelta(hours=1)))

    result = deployment.run("2026-06-01T00", "2026-06-01T02")

    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == 12
    assert all(evaluation.passed for evaluation in evaluations)
    materializations = [event.materialization for event in result.get_asset_materialization_events()]
    # The two traces are of one query; every other object is an empty one with a query of its own.
    assert len({str(event.metadata["query_id"].value) for event in materializations}) == 11
    assert not any("sha256" in event.metadata for event in materializations)
    assert len(s3.keys(BUCKET)) == 3 * 5
