"""An S3 server as a process of its own, and a proxy that records, refuses and delays what goes to it."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import boto3
import urllib3

from langfuse_worker.blobstore import StoreConfig
from tests.servers.http import Answering, HttpServer

REGION = "eu-central-1"
# Prints its port, so that nobody has to guess one, and ends with the process that holds its stdin.
_SERVE = """
import os, sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
"""


class S3Server:
    """S3 over HTTP (moto). Buckets are made by hand; any key pair gets in."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def create_bucket(self, name: str) -> None:
        """Make a bucket, empty it if it is there."""
        if name not in {bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]}:
            self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        for key in self.keys(name):
            self.client.delete_object(Bucket=name, Key=key)
        for key, upload in self.open_uploads(name).items():
            self.client.abort_multipart_upload(Bucket=name, Key=key, UploadId=upload)

    def keys(self, bucket: str) -> list[str]:
        """Keys of the objects, sorted."""
        return sorted(item["Key"] for item in self.client.list_objects_v2(Bucket=bucket).get("Contents", []))

    def read(self, bucket: str, key: str) -> bytes:
        """Content of an object."""
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def head(self, bucket: str, key: str) -> dict[str, Any]:
        """What the store says of an object."""
        return self.client.head_object(Bucket=bucket, Key=key)

    def open_uploads(self, bucket: str) -> dict[str, str]:
        """Multipart uploads that are neither completed nor aborted: key to upload id."""
        uploads = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return {upload["Key"]: upload["UploadId"] for upload in uploads}

    def store_config(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> StoreConfig:
        """How the product reaches a bucket."""
        return StoreConfig(
            url=f"s3://{bucket}/{prefix}",
            endpoint=endpoint or self.url,
            region=REGION,
            access_key_id="key",
            secret_access_key="secret",
        )


@dataclass(frozen=True)
class S3Request:
    """A request as it arrived; header names in lower case, the body of a POST only.

    Attributes:
        client_port: tells the connections apart by which requests came.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    client_port: int = 0


@dataclass
class S3Fault:
    """What happens to requests of a method whose path and query contain a text.

    Attributes:
        status: the answer's HTTP status; 0 closes the connection without an answer.
        body: the answer's body.
        headers: further headers of the answer.
        times: how many requests; -1 for all of them.
        until: answered, by the real server, only once this is set.
    """

    method: str = "PUT"
    contains: str = ""
    status: int = 503
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = -1
    until: threading.Event | None = None


class _Forwarding(Answering):
    owner: "S3Proxy"

    def _forward(self) -> None:
        body = self.read_body()
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.command == "POST" and parts.query.startswith("Action="):
            # STS takes parameters from the address as well, moto from the body alone.
            body, self.path = parts.query.encode(), parts.path
            headers |= {"content-type": "application/x-www-form-urlencoded", "content-length": str(len(body))}
        posted = body if self.command == "POST" else b""
        port = self.client_address[1]
        request = S3Request(self.command, parts.path, parts.query, headers, posted, port)
        self.owner.record(request)
        time.sleep(self.owner.latency_s)
        fault = self.owner.fault_for(request)
        if fault and fault.until:
            fault.until.wait()
        elif fault and fault.status == 0:
            self.close_connection = True
            return
        elif fault:
            headers = {"Content-Type": "application/xml", **fault.headers}
            self.answer(fault.status, fault.body.encode(), headers)
            return
        answer = urllib3.request(
            self.command,
            self.owner.upstream.url + self.path,
            body=body,
            headers=headers,
            retries=False,
            timeout=60,
            decode_content=False,
        )
        kept = {
            n: v for n, v in answer.headers.items() if n.lower() not in ("connection", "transfer-encoding")
        }
        self.answer(answer.status, answer.data, kept)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward


@dataclass
class S3Proxy(HttpServer):
    """Stands between the product and an S3 server, which is also an STS.

    Attributes:
        latency_s: seconds that each request waits, as on the way to a bucket.
        certificate: PEM file with key and certificate of a proxy that speaks TLS.
    """

    handler = _Forwarding
    upstream: S3Server
    latency_s: float = 0
    certificate: Path | None = None
    faults: list[S3Fault] = field(default_factory=list)
    requests: list[S3Request] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, method: str, contains: str, timeout_s: float = 60) -> None:
        """Return once such a request has come; raises TimeoutError."""

        def came() -> bool:
            return any(r.method == method and contains in f"{r.path}?{r.query}" for r in self.requests)

        with self._arrived:
            if not self._arrived.wait_for(came, timeout_s):
                raise TimeoutError(f"no {method} {contains}")

    def record(self, request: S3Request) -> None:
        """Note a request that has come."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def fault_for(self, request: S3Request) -> S3Fault | None:
        """The fault that hits this request, if any; counts it."""
        for fault in self.faults:
            target = f"{request.path}?{request.query}"
            if fault.method == request.method and fault.contains in target and fault.times != 0:
                fault.times -= fault.times > 0
                return fault
        return None
