"""One blob store from a URL: file://, s3://, az:// or gs://, through obstore.

Objects appear whole or not at all: streams go up as multipart uploads (on disk: as a staged file) that are
aborted when the stream raises.
"""

from langfuse_worker.blobstore.config import SCHEMES, StoreConfig
from langfuse_worker.blobstore.errors import (
    ObjectNotFoundError,
    ObjectTooLargeError,
    StoreAccessError,
    StoreError,
    StoreFullError,
    StoreUnreachableError,
)
from langfuse_worker.blobstore.parts import PART_BYTES
from langfuse_worker.blobstore.store import BlobStore, ObjectEnd, WrittenObject

__all__ = [
    "PART_BYTES",
    "SCHEMES",
    "BlobStore",
    "ObjectEnd",
    "ObjectNotFoundError",
    "ObjectTooLargeError",
    "StoreAccessError",
    "StoreConfig",
    "StoreError",
    "StoreFullError",
    "StoreUnreachableError",
    "WrittenObject",
]
