"""Whether ClickHouse can write where the catalog says `transfer: server`."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from langfuse_export.doctor.subject import Subject
from langfuse_export.errors import collection_remedy
from langfuse_export.layout import INCOMPLETE
from langfuse_export.server_transfer import write_by_server
from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError, StoreConfig, StoreError
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment
from langfuse_worker.doctor import Check, Finding, ok, problem
from langfuse_worker.doctor.clickhouse import connected
from langfuse_worker.doctor.runner import run_checks

_DOCS = "docs/operations.md, Server mode"
_TIMEOUT_S = 60.0


def check_server_mode(subject: Subject) -> Iterator[Finding]:
    """Try each destination that ClickHouse writes to; one that hangs keeps no other from being tried."""
    names = {name: f"server mode of {name}" for name in subject.server_mode}
    yield from run_checks(
        [
            Check(names[name], partial(_try, names[name], subject, *way), timeout_s=_TIMEOUT_S)
            for name, way in subject.server_mode.items()
        ]
    )


def _try(what: str, subject: Subject, config: StoreConfig, collection: str) -> Iterator[Finding]:
    """Have ClickHouse write an object as exports do, put it in place, delete it."""
    store = BlobStore(config)
    key = f"langfuse-doctor-{uuid.uuid4()}.parquet"
    staged = f"{INCOMPLETE}/{key}"
    refused = _refusal(what, subject, store, collection, staged)
    yield refused or _placed(what, store, collection, staged, key)


def _refusal(what: str, subject: Subject, store: BlobStore, collection: str, staged: str) -> Finding | None:
    """What keeps ClickHouse from writing the object."""
    query = Query("SELECT 1 AS doctor", QueryComment(purpose="doctor"))
    try:
        with connected(subject.connect) as source:
            write_by_server(source, store, collection, staged, query)
    except ClickHouseError as error:
        remedy = collection_remedy(error, collection) or f"see {_DOCS}"
        return problem(what, str(error.__cause__ or error), remedy)
    except StoreError as error:
        remedy = "check the address and the credentials in the collection, and the way from ClickHouse there"
        return problem(what, str(error), f"{remedy} ({_DOCS})")
    return None


def _placed(what: str, store: BlobStore, collection: str, staged: str, key: str) -> Finding:
    """Whether the worker finds the object where it looks for it, and may put it in place."""
    try:
        store.end(staged, 1)
        store.copy(staged, key)
        store.delete(key)
        store.delete(staged)
    except ObjectNotFoundError:
        text = f"ClickHouse has written {store.uri(staged)} with {collection}, but it is not there"
        remedy = (
            f"the address in the collection must be that of the bucket of {store.config.url}, without the "
            f"prefix; where it points now, delete {store.whole_key(staged)}"
        )
        return problem(what, text, remedy)
    except StoreError as error:
        for left in (staged, key):
            with suppress(StoreError):
                store.delete(left)
        remedy = "allow GetObject, PutObject and DeleteObject on the whole prefix"
        return problem(what, f"the worker cannot put in place what ClickHouse wrote: {error}", remedy)
    return ok(what, f"ClickHouse writes into {store.config.url} with the collection {collection}")
