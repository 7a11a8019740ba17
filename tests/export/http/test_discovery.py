"""Finding the projects of a ClickHouse server."""

from pathlib import Path

from langfuse_export.catalog.discovery import discover
from langfuse_export.tables import TABLES
from tests.export.http.exporting import Deployment
from tests.rows import PROJECT, trace


def test_the_first_project_is_found_at_once_and_the_next_one_when_what_was_found_is_old(
    deployment: Deployment, tmp_path: Path
) -> None:
    def found() -> set[str]:
        return set(discover(deployment.source, list(TABLES.values()), tmp_path, deployment.server.url))

    assert found() == set()
    deployment.insert("traces", trace("t1"))
    assert found() == {PROJECT}

    deployment.insert("traces", trace("t2", project_id="p2"))
    assert found() == {PROJECT}
    [cache] = tmp_path.iterdir()
    cache.write_text(cache.read_text().replace('"found_at":', '"found_at":-'))
    assert found() == {PROJECT, "p2"}
