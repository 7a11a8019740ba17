"""Objects of windows that have no rows any more, where a catalog wants no objects without rows."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from langfuse_export.manifest import ManifestFile
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Window
from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError

# By how much the clocks of ClickHouse and the store may differ; `doctor` calls that much a problem.
_CLOCKS = timedelta(minutes=5)


def standing_tag(store: BlobStore, key: str) -> str | None:
    """The entity tag of the object at the key, None if there is no object. Raises StoreError."""
    try:
        return store.e_tag(key) or ""
    except ObjectNotFoundError:
        return None


def remove_emptied(
    store: BlobStore,
    project: ProjectExport,
    window: Window,
    files: Mapping[str, ManifestFile],
    left: Mapping[str, str | None],
) -> bool:
    """Remove objects that earlier revisions have left of tables that are empty now; whether there were any.

    The manifest that stands must say that they are empty.

    Args:
        store: the destination.
        project: the project.
        window: the window.
        files: entries of the manifest by table name.
        left: by name of the tables of this attempt, the tag of the object that was there when the table was
            found empty. Nothing has changed it since.

    Raises:
        StoreError: an object could not be removed.
    """
    emptied = [name for name, file in files.items() if not file.has_object]
    keys = {name: project.object_key(project.table(name), window) for name in emptied}
    removed = [
        key
        for name, key in keys.items()
        if (left[name] is not None if name in left else _is_older(store, key, files[name]))
    ]
    for key in removed:
        store.delete(key)
    return bool(removed)


def _is_older(store: BlobStore, key: str, empty: ManifestFile) -> bool:
    """Whether an object was written before an earlier attempt found the table empty, and not by another."""
    try:
        written_at = store.modified_at(key)
    except ObjectNotFoundError:
        return False
    return written_at < datetime.fromisoformat(empty.read_at) - _CLOCKS
