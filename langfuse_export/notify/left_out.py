"""Tells people of projects that are left out because their row in Langfuse's Postgres is invalid.

Such a project has no assets and no health. Which of them people know of is kept in the Dagster instance.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from langfuse_export.catalog.postgres import Rejection
from langfuse_export.health.notice_kind import NoticeKind
from langfuse_export.notify.notice import Message
from langfuse_export.notify.notifier import Notifier
from langfuse_export.windows import iso

_KEY = "langfuse_export/left_out"


def tell_left_out(
    instance: dg.DagsterInstance, notifier: Notifier, rejections: Sequence[Rejection], now: datetime
) -> None:
    """Send one message of the rows that have become invalid, and of those that are so no more.

    Owners get no mail of it: Langfuse's page shows them the error.

    Args:
        instance: which knows what has been told.
        notifier: who is told.
        rejections: the rows that are invalid now.
        now: when that is, UTC.
    """
    if not notifier.channels:
        return
    storage = instance.daemon_cursor_storage
    told: list[str] = json.loads(storage.get_cursor_values({_KEY}).get(_KEY, "[]"))
    errors = {rejection.project_id: rejection.error for rejection in rejections}
    new = {project_id: error for project_id, error in errors.items() if project_id not in told}
    mended = [project_id for project_id in told if project_id not in errors]
    if new or mended:
        # First: a message is sent once, whether it arrives or not.
        storage.set_cursor_values({_KEY: json.dumps(sorted(errors))})
        notifier.send(_message(new, mended, now))


def _message(new: Mapping[str, str], mended: Sequence[str], now: datetime) -> Message:
    lines = [
        *(
            f"{project_id} is left out: {error}. Mend it on Langfuse's page."
            for project_id, error in new.items()
        ),
        *(f"{project_id} is no longer left out: its row is valid, off or gone." for project_id in mended),
    ]
    notices = [
        *(_notice(NoticeKind.LEFT_OUT, project_id, error) for project_id, error in new.items()),
        *(_notice(NoticeKind.TAKEN_IN, project_id, None) for project_id in mended),
    ]
    subject = f"Langfuse exports: {len(lines)} projects changed"
    if len(lines) == 1:
        subject = f"Langfuse export of {lines[0].partition(':')[0]}"
    body = {"type": "blob-export", "sentAt": iso(now), "notices": notices}
    return Message(subject, tuple(lines), body)


def _notice(kind: NoticeKind, project_id: str, error: str | None) -> dict[str, object]:
    return {"kind": kind.value, "projectId": project_id, "error": error}
