"""Whether Langfuse's own blob storage export still runs for a project that is exported here."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from langfuse_export.doctor.subject import Subject
from langfuse_export.project import ProjectExport
from langfuse_worker.blobstore import BlobStore, StoreError
from langfuse_worker.clickhouse import ClickHouseError
from langfuse_worker.doctor import Finding, ok, problem
from langfuse_worker.doctor.clickhouse import ask, connected

_WHAT = "langfuse's own export"
_REMEDY = (
    "switch the project's export off in Langfuse, or its worker's "
    "QUEUE_CONSUMER_BLOB_STORAGE_INTEGRATION_QUEUE_IS_ENABLED"
)
_LOOK_BACK = timedelta(days=2)
_MOST_PROJECTS = 50
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)\.json$")

# Langfuse signs its queries so.
_QUERIES = """
SELECT JSONExtractString(log_comment, 'projectId') AS project, count(), toString(max(event_time))
FROM system.query_log
WHERE type = 'QueryStart' AND event_date >= yesterday() AND event_time >= now() - 86400
  AND JSONExtractString(log_comment, 'route') = 'blob_export'
GROUP BY project ORDER BY project
"""


def check_other_exports(subject: Subject) -> Iterator[Finding]:
    """Look for its queries, and for manifests that no window of ours ends with."""
    projects = {p.project_id: p for p in subject.catalog.projects if p.enabled}
    found = dict(_by_queries(subject))
    for project in list(projects.values())[:_MOST_PROJECTS]:
        for stamp in _foreign_manifests(project):
            text = f"wrote manifests/{stamp} beside ours, in {project.destination.url}"
            found.setdefault(project.project_id, text)
    both = {project: text for project, text in found.items() if project in projects}
    for project, text in both.items():
        yield problem(_WHAT, f"{project}: {text}", _REMEDY)
    if not both and len(projects) > _MOST_PROJECTS:
        text = f"no sign of it; of {len(projects)} buckets' folders the first {_MOST_PROJECTS} were looked at"
        yield ok(_WHAT, text)
    elif not both:
        yield ok(_WHAT, "no sign of it for a project that is exported here")


def _by_queries(subject: Subject) -> Iterator[tuple[str, str]]:
    try:
        with connected(subject.connect) as source:
            rows = ask(source, _QUERIES)
    except ClickHouseError:
        return  # the check of query_log says why
    for project, count, last in rows:
        yield project, f"sent {count} queries to ClickHouse within a day, the last at {last}"


def _foreign_manifests(project: ProjectExport) -> Iterator[str]:
    """The newest manifest that is not on the clock: Langfuse names them by when they were written."""
    folder = f"{project.project_id}/manifests/"
    since = datetime.now(UTC) - _LOOK_BACK
    try:
        keys = BlobStore(project.destination).keys(folder, after=f"{folder}{since:%Y-%m-%dT%H-%M-%S}")
    except StoreError:
        return  # the check of the destination says why
    for key in reversed(keys):
        found = _STAMP.search(key)
        if found is None:
            continue
        end = datetime.strptime(found[1], "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC)
        if project.frequency.floor(end) != end:
            yield found[0]
            return
