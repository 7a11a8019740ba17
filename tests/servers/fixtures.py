"""The servers as fixtures."""

from collections.abc import Iterator

import pytest

from tests.servers.otlp import OtlpReceiver
from tests.servers.s3 import S3Proxy, S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server for the session."""
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_proxy(s3: S3Server) -> Iterator[S3Proxy]:
    """A proxy in front of it, without faults."""
    with S3Proxy(s3) as proxy:
        yield proxy


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    """A receiver of metrics."""
    with OtlpReceiver() as receiver:
        yield receiver
