"""Deletes blobs with a shared access signature.

obstore deletes by batches alone, and to a batch with a signature Azurite answers 500.
"""

from functools import cached_property
from urllib.parse import quote

import urllib3
from urllib3.util import parse_url

from langfuse_worker.blobstore.config import StoreConfig
from langfuse_worker.blobstore.errors import ObjectNotFoundError, StoreAccessError, StoreError
from langfuse_worker.blobstore.gate import Guard
from langfuse_worker.store_faults import access_fault

_VERSION = "2021-12-02"
_TIMEOUT_S = 30
_ATTEMPTS = 3
_CONNECTIONS = 16  # kept at most; others are closed after use


class SignedDeletes:
    """Deletes blobs of one container, one after the other by the same connection. Thread-safe."""

    def __init__(self, config: StoreConfig, guard: Guard | None) -> None:
        """Nothing is connected to yet.

        Args:
            config: has a `sas_token`.
            guard: what checks every address before it is connected to; None for a trusted endpoint.
        """
        self._config = config
        self._guard = guard
        endpoint = config.endpoint or f"https://{config.account_name}.blob.core.windows.net"
        self._endpoint = endpoint.rstrip("/")

    def delete(self, key: str) -> None:
        """Delete a blob by its whole key in the container.

        Raises:
            EndpointError: the endpoint is refused.
            StoreError: without the signature; ObjectNotFoundError and StoreAccessError among them.
        """
        config = self._config
        token = (config.sas_token or "").lstrip("?")
        what = f"az://{config.bucket}/{key}"
        retries = urllib3.Retry(_ATTEMPTS - 1, redirect=0, status_forcelist=(500, 503), backoff_factor=0.2)
        retries.raise_on_status = False
        try:
            answer = self._pool.request(
                "DELETE",
                f"{self._endpoint}/{config.bucket}/{quote(key)}?{token}",
                headers={"x-ms-version": _VERSION},
                retries=retries,
                timeout=_TIMEOUT_S,
            )
        except urllib3.exceptions.HTTPError as error:
            # Its message has the address, and with it the signature.
            cause = getattr(error, "reason", None) or error
            raise StoreError(f"{what}: no answer: {type(cause).__name__}") from None
        if answer.status == 202:
            return
        text = config.masked(answer.data.decode(errors="replace"))[:1000]
        message = f"{what}: cannot be deleted, the store answered {answer.status}: {text}"
        if fault := access_fault(text):
            raise StoreAccessError(message, fault)
        raise (ObjectNotFoundError if answer.status == 404 else StoreError)(message)

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        if self._guard is None:
            return urllib3.PoolManager(maxsize=_CONNECTIONS)
        self._guard.check(self._endpoint)
        proxy = parse_url(self._guard.proxy_url)
        headers = urllib3.make_headers(proxy_basic_auth=proxy.auth)
        return urllib3.ProxyManager(f"http://{proxy.netloc}", proxy_headers=headers, maxsize=_CONNECTIONS)
