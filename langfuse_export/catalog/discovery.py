"""Finds the projects in ClickHouse and when each began.

Every Dagster run process loads the catalog anew, so what was found is kept in LANGFUSE_HOME for a while.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import BaseModel, ValidationError

from langfuse_export import sql
from langfuse_export.tables import Table
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError, Query, QueryComment

log = structlog.get_logger()

FRESH_S = 300
# A span with a broken clock says 1970; half a million hourly windows would follow. `start` overrides this.
EARLIEST = datetime(2023, 1, 1, tzinfo=UTC)


class Discovered(BaseModel):
    """Projects by id, each with the time of its first row in any table, UTC."""

    found_at: float
    first_rows: dict[str, datetime]


def discover(
    source: ClickHouse, tables: Sequence[Table], cache_directory: Path, source_url: str
) -> Mapping[str, datetime]:
    """Projects with rows in the tables, and the first of them; once there are any, cached for five minutes.

    Raises:
        ClickHouseError: ClickHouse does not answer and nothing was found earlier.
    """
    identity = " ".join([source_url, *(table.name for table in tables)])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cache = cache_directory / f"projects-{digest}.json"
    known = _read(cache)
    # That there is none is not worth keeping: whoever sets the product up waits for the first one.
    if known and known.first_rows and time.time() - known.found_at < FRESH_S:
        return known.first_rows
    try:
        found = Discovered(found_at=time.time(), first_rows=query_projects(source, tables))
    except ClickHouseError as error:
        if known is None:
            raise
        log.warning("project_discovery_failed", error=str(error), projects=len(known.first_rows))
        return known.first_rows
    _write(cache, found)
    return found.first_rows


def query_projects(source: ClickHouse, tables: Sequence[Table]) -> dict[str, datetime]:
    """Ask ClickHouse; events count as much as the older tables do. Raises ClickHouseError."""
    rows = source.rows(Query(sql.projects(tables), QueryComment(purpose="discover")))
    return {project: max(datetime.fromtimestamp(first, UTC), EARLIEST) for project, first in rows}


def forget(cache_directory: Path) -> None:
    """Have the next `discover` ask ClickHouse."""
    for cache in cache_directory.glob("projects-*.json"):
        cache.unlink(missing_ok=True)


def _read(cache: Path) -> Discovered | None:
    try:
        return Discovered.model_validate_json(cache.read_text())
    except (OSError, ValidationError):
        return None


def _write(cache: Path, found: Discovered) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_suffix(".tmp")
        temporary.write_text(found.model_dump_json())
        temporary.replace(cache)
    except OSError as error:
        log.debug("project_cache_not_written", path=str(cache), error=str(error))
