"""The servers as fixtures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.azure import AzureServer
from tests.servers.certificate import write_certificate
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.google import GoogleServer
from tests.servers.langfuse_postgres import LangfusePostgres
from tests.servers.notifications import MailServer, WebhookReceiver
from tests.servers.otlp import OtlpReceiver
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.servers.s3 import REGION, S3Proxy, S3Server


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
def s3_tls_proxy(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy in front of it that speaks TLS, with a certificate that is trusted."""
    certificate = write_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # obstore
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))  # boto3
    with S3Proxy(s3, certificate=certificate) as proxy:
        yield proxy


@pytest.fixture
def pod_token(s3_tls_proxy: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The token of a pod whose service account EKS has given a role, with the variables that EKS sets."""
    token = tmp_path / "token"
    token.write_text("token-of-the-pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/exporter-of-the-pod")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "regional")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_tls_proxy.url)  # instead of AWS's own
    return token


@pytest.fixture(scope="session")
def azure() -> Iterator[AzureServer]:
    """An Azure Blob Storage for the session."""
    with AzureServer() as server:
        yield server


@pytest.fixture(scope="session")
def google() -> Iterator[GoogleServer]:
    """A Google Cloud Storage for the session."""
    with GoogleServer() as server:
        yield server


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A ClickHouse server for the session."""
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def clickhouse(clickhouse_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """The server without rows and faults."""
    clickhouse_server.empty()
    yield clickhouse_server
    clickhouse_server.break_next()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis-protocol server for the session."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    """The server without keys."""
    redis_server.client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server for the session."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def langfuse_database(postgres: PostgresServer) -> LangfusePostgres:
    """A database with Langfuse's tables for the session."""
    database = LangfusePostgres(postgres)
    database.create()
    return database


@pytest.fixture
def langfuse(langfuse_database: LangfusePostgres) -> LangfusePostgres:
    """The database without projects."""
    langfuse_database.empty()
    return langfuse_database


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    """A receiver of metrics."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def webhook() -> Iterator[WebhookReceiver]:
    """A receiver of notifications."""
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A mail server."""
    with MailServer() as server:
        yield server
