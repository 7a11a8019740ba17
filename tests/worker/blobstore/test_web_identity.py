"""S3 with the web identity of a pod, as EKS gives one to a service account (IRSA); STS speaks TLS."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from langfuse_worker.blobstore import BlobStore, StoreAccessError, StoreConfig
from langfuse_worker.settings import settings
from langfuse_worker.store_faults import AccessFault
from tests.servers.s3 import S3Fault, S3Proxy, S3Server
from tests.worker.blobstore.sts import session_tokens, sts_calls, write_until_called_twice

BUCKET = "web-identity"
OTHER_ROLE = "arn:aws:iam::210987654321:role/exporter-of-the-archive"
SHORT_LIVED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIASHORTLIVED</AccessKeyId>
<SecretAccessKey>first-secret</SecretAccessKey><SessionToken>first-token</SessionToken>
<Expiration>{}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
REFUSED = "<ErrorResponse><Error><Code>{}</Code><Message>no</Message></Error></ErrorResponse>"


@pytest.fixture
def config(s3: S3Server, s3_tls_proxy: S3Proxy, pod_token: Path) -> StoreConfig:
    """A bucket without keys, for a pod."""
    s3.create_bucket(BUCKET)
    config = s3.store_config(BUCKET, endpoint=s3_tls_proxy.url)
    return replace(config, access_key_id=None, secret_access_key=None)


def test_the_role_is_assumed_once_with_the_token_of_the_pod(
    config: StoreConfig, s3: S3Server, s3_tls_proxy: S3Proxy
) -> None:
    store = BlobStore(config)
    for key in ("a", "b"):
        store.write_bytes(key, b"x", "text/plain")

    [call] = sts_calls(s3_tls_proxy)
    assert call["WebIdentityToken"] == "token-of-the-pod"
    assert call["RoleArn"].endswith("role/exporter-of-the-pod")
    assert s3.keys(BUCKET) == ["a", "b"]
    [token] = set(session_tokens(s3_tls_proxy))
    assert token


def test_a_token_that_was_replaced_is_read_again(
    config: StoreConfig, s3_tls_proxy: S3Proxy, pod_token: Path
) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    s3_tls_proxy.faults = [S3Fault("POST", status=200, body=SHORT_LIVED.format(soon), times=1)]
    store = BlobStore(config)
    store.write_bytes("a", b"x", "text/plain")
    pod_token.write_text("next-token-of-the-pod")

    write_until_called_twice(store, s3_tls_proxy)

    assert [call["WebIdentityToken"] for call in sts_calls(s3_tls_proxy)] == [
        "token-of-the-pod",
        "next-token-of-the-pod",
    ]
    tokens = session_tokens(s3_tls_proxy)
    assert tokens[0] == "first-token"
    assert tokens[-1] != "first-token"


def test_a_role_of_another_account_is_assumed_with_that_of_the_pod(
    config: StoreConfig, s3: S3Server, s3_tls_proxy: S3Proxy
) -> None:
    BlobStore(replace(config, assume_role_arn=OTHER_ROLE)).write_bytes("a", b"x", "text/plain")

    pods, other = sts_calls(s3_tls_proxy)
    assert pods["WebIdentityToken"] == "token-of-the-pod"
    assert (other["Action"], other["RoleArn"]) == ("AssumeRole", OTHER_ROLE)
    assert s3.keys(BUCKET) == ["a"]


def test_the_token_serves_endpoints_from_the_database_too(
    config: StoreConfig, s3: S3Server, s3_tls_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_IPS", "127.0.0.1")
    settings.cache_clear()

    BlobStore(replace(config, untrusted_endpoint=True)).write_bytes("a", b"x", "text/plain")

    assert [call["WebIdentityToken"] for call in sts_calls(s3_tls_proxy)] == ["token-of-the-pod"]
    assert s3.keys(BUCKET) == ["a"]


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredTokenException", "InvalidIdentityToken"])
def test_a_token_that_is_refused_is_for_somebody_to_mend(
    config: StoreConfig, s3_tls_proxy: S3Proxy, code: str
) -> None:
    s3_tls_proxy.faults = [S3Fault("POST", status=400, body=REFUSED.format(code))]
    with pytest.raises(StoreAccessError, match=f"{code}: no") as error:
        BlobStore(config).write_bytes("a", b"x", "text/plain")
    assert error.value.fault is AccessFault.CREDENTIALS


@pytest.mark.parametrize("role", [None, OTHER_ROLE], ids=["its role", "another role"])
def test_a_token_that_is_not_mounted_is_for_somebody_to_mend(
    config: StoreConfig, pod_token: Path, role: str | None
) -> None:
    pod_token.unlink()
    with pytest.raises(StoreAccessError) as error:
        BlobStore(replace(config, assume_role_arn=role)).write_bytes("a", b"x", "text/plain")
    assert str(pod_token) in str(error.value)
    assert "No such file" in str(error.value)
    assert error.value.fault is AccessFault.CREDENTIALS
