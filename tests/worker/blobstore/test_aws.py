"""S3: whose credentials are used, and what arrives at the server."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from langfuse_worker.blobstore import BlobStore, StoreAccessError, StoreConfig
from langfuse_worker.store_faults import AccessFault
from tests.servers.s3 import S3Fault, S3Proxy, S3Request, S3Server
from tests.worker.blobstore.sts import session_tokens, sts_calls, write_until_called_twice

BUCKET = "credentials"
ROLE = "arn:aws:iam::123456789012:role/exporter"
# What STS answers, but with credentials that end in a moment.
SHORT_LIVED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ASIASHORTLIVED</AccessKeyId><SecretAccessKey>first-secret</SecretAccessKey>
<SessionToken>first-token</SessionToken><Expiration>{expiration}</Expiration></Credentials>
<AssumedRoleUser><Arn>{role}/langfuse-export</Arn><AssumedRoleId>AROA:langfuse-export</AssumedRoleId>
</AssumedRoleUser></AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleResponse>"""
DENIED = """<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>
<Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>"""


@pytest.fixture
def config(s3: S3Server, s3_proxy: S3Proxy) -> StoreConfig:
    """A bucket, through the proxy."""
    s3.create_bucket(BUCKET)
    return s3.store_config(BUCKET, endpoint=s3_proxy.url)


@pytest.fixture
def role(config: StoreConfig, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> StoreConfig:
    """The bucket, with a role that is assumed at the proxy's STS."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_proxy.url)
    return replace(config, assume_role_arn=ROLE, external_id="langfuse")


def write(config: StoreConfig, *keys: str) -> None:
    """Write objects with one store."""
    store = BlobStore(config)
    for key in keys:
        store.write(key, iter([b"x"]), "text/plain")


def written(proxy: S3Proxy, key: str) -> S3Request:
    """The request that wrote a key."""
    [request] = [r for r in proxy.requests if r.path.endswith(f"/{key}") and r.method == "PUT"]
    return request


def test_temporary_keys_come_with_their_token(config: StoreConfig, s3_proxy: S3Proxy) -> None:
    write(replace(config, session_token="the-token"), "a")
    assert written(s3_proxy, "a").headers["x-amz-security-token"] == "the-token"


def test_keys_are_not_mixed_with_a_token_from_the_environment(
    config: StoreConfig, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    write(config, "a")
    assert "x-amz-security-token" not in written(s3_proxy, "a").headers


def test_a_role_is_assumed_with_the_external_id_and_used(role: StoreConfig, s3_proxy: S3Proxy) -> None:
    write(role, "a", "b")

    [call] = sts_calls(s3_proxy)
    assert (call["RoleArn"], call["ExternalId"]) == (ROLE, "langfuse")
    headers = written(s3_proxy, "b").headers
    assert "Credential=ASIA" in headers["authorization"]
    assert headers["x-amz-security-token"]


def test_credentials_are_fetched_again_before_they_expire(role: StoreConfig, s3_proxy: S3Proxy) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    s3_proxy.faults = [S3Fault("POST", "/?", 200, SHORT_LIVED.format(expiration=soon, role=ROLE), times=1)]

    write_until_called_twice(BlobStore(role), s3_proxy)

    tokens = session_tokens(s3_proxy)
    assert tokens[0] == "first-token"
    assert tokens[-1] != "first-token"


def test_a_role_that_may_not_be_assumed_is_for_somebody_to_mend(
    role: StoreConfig, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    s3_proxy.faults = [S3Fault("POST", "/?", 403, DENIED)]

    with pytest.raises(StoreAccessError, match="AccessDenied") as error:
        write(role, "a")

    assert error.value.fault is AccessFault.CREDENTIALS
    assert s3.keys(BUCKET) == []


def test_without_boto3_a_role_says_what_to_install(
    role: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StoreAccessError, match=r"assume_role_arn: .*pip install 'langfuse-export\[aws\]'"):
        write(role, "a")


def test_an_instance_profile_is_ambient(
    config: StoreConfig, s3: S3Server, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", s3_proxy.url)
    profile = '{{"AccessKeyId": "ASIAPROFILE", "SecretAccessKey": "s", "Token": "t", "Expiration": "{}"}}'
    later = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    s3_proxy.faults = [
        S3Fault("PUT", "/latest/api/token", 200, "metadata-token"),
        S3Fault("GET", "/iam/security-credentials/exporter", 200, profile.format(later)),
        S3Fault("GET", "/iam/security-credentials/", 200, "exporter"),
    ]

    write(replace(config, access_key_id=None, secret_access_key=None), "a")

    assert "Credential=ASIAPROFILE" in written(s3_proxy, "a").headers["authorization"]


def test_the_identity_of_a_pod_is_ambient(
    config: StoreConfig, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the agent of EKS gives one out."""
    (tmp_path / "token").write_text("token-of-the-pod")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{s3_proxy.url}/v1/credentials")
    later = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    keys = f'{{"AccessKeyId": "ASIAPOD", "SecretAccessKey": "s", "Token": "t", "Expiration": "{later}"}}'
    s3_proxy.faults = [S3Fault("GET", "/v1/credentials", 200, keys)]

    write(replace(config, access_key_id=None, secret_access_key=None), "a")

    [asked] = [r for r in s3_proxy.requests if r.path == "/v1/credentials"]
    assert asked.headers["authorization"] == "token-of-the-pod"
    assert "Credential=ASIAPOD" in written(s3_proxy, "a").headers["authorization"]


def test_nothing_is_sent_that_googles_s3_interface_refuses(
    config: StoreConfig, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    """It answers checksums of composed objects with 412 and knows neither trailers nor deletion in bulk."""
    store = BlobStore(replace(config, region="auto", part_bytes=5 << 20))
    store.write("a", iter([b"x" * (6 << 20)] * 2), "text/plain")
    store.write_bytes("b", b"x", "text/plain")
    store.delete("a")

    assert s3.keys(BUCKET) == ["b"]
    for request in s3_proxy.requests:
        assert not [name for name in request.headers if "checksum" in name or name == "x-amz-trailer"]
        assert "aws-chunked" not in request.headers.get("content-encoding", "")
        assert "delete" not in request.query
