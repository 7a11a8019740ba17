"""What a store has asked STS for, and written with."""

from urllib.parse import parse_qsl

from langfuse_worker.blobstore import BlobStore
from tests.servers.s3 import S3Proxy
from tests.waiting import wait_for


def sts_calls(proxy: S3Proxy) -> list[dict[str, str]]:
    """Parameters of the calls of STS."""
    posted = [request.body for request in proxy.requests if request.method == "POST"]
    return [dict(parse_qsl(body.decode())) for body in posted if b"Action=AssumeRole" in body]


def session_tokens(proxy: S3Proxy) -> list[str]:
    """What objects were written with."""
    return [r.headers["x-amz-security-token"] for r in proxy.requests if r.method == "PUT"]


def write_until_called_twice(store: BlobStore, proxy: S3Proxy) -> None:
    """Write until credentials are fetched again: obstore keeps what is about to expire for a moment."""

    def is_called_twice() -> bool:
        store.write_bytes("a", b"x", "text/plain")
        return len(sts_calls(proxy)) == 2

    wait_for(is_called_twice, lambda: str(sts_calls(proxy)))
