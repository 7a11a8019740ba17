"""What the answers of S3, Azure and Google Cloud Storage say about who has to act."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from langfuse_worker.blobstore import (
    BlobStore,
    StoreAccessError,
    StoreConfig,
    StoreError,
    StoreUnreachableError,
)
from langfuse_worker.store_faults import AccessFault, access_fault
from tests.servers.certificate import write_certificate
from tests.servers.http import Answering, HttpServer


class _Refusing(Answering):
    owner: "Refusing"

    def _refuse(self) -> None:
        self.read_body()
        self.answer(self.owner.status, self.owner.body)

    do_GET = do_PUT = _refuse


@dataclass
class Refusing(HttpServer):
    """A store that answers everything with one status and body."""

    handler = _Refusing
    certificate: Path | None = None
    status: int = 403
    body: bytes = b""


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """A store that refuses."""
    with Refusing() as server:
        yield server


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[Refusing]:
    """A store whose certificate nobody has signed."""
    with Refusing(write_certificate(tmp_path / "certificate.pem")) as server:
        yield server


def _config(scheme: str, endpoint: str) -> StoreConfig:
    if scheme == "az":
        return StoreConfig("az://bucket/", endpoint, account_name="account", account_key="c2VjcmV0")
    return StoreConfig("s3://bucket/", endpoint, "eu", access_key_id="key", secret_access_key="secret")


@pytest.mark.parametrize("scheme", ["s3", "az"])
@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (403, "InvalidAccessKeyId", AccessFault.CREDENTIALS),
        (403, "SignatureDoesNotMatch", AccessFault.CREDENTIALS),
        (403, "AccessDenied", AccessFault.CREDENTIALS),
        (403, "AllAccessDisabled", AccessFault.BUCKET),
        (403, "AccountProblem", AccessFault.CREDENTIALS),
        (400, "AuthorizationHeaderMalformed", AccessFault.CREDENTIALS),
        (400, "InvalidToken", AccessFault.CREDENTIALS),
        (401, "", AccessFault.CREDENTIALS),
        (404, "NoSuchBucket", AccessFault.BUCKET),
        (400, "InvalidBucketName", AccessFault.BUCKET),
        (301, "PermanentRedirect", AccessFault.ENDPOINT),
        (403, "AuthenticationFailed", AccessFault.CREDENTIALS),
        (403, "AuthorizationFailure", AccessFault.CREDENTIALS),
        (403, "AuthorizationPermissionMismatch", AccessFault.CREDENTIALS),
        (400, "InvalidAuthenticationInfo", AccessFault.CREDENTIALS),
        (409, "AccountIsDisabled", AccessFault.CREDENTIALS),
        (403, "InsufficientAccountPermissions", AccessFault.CREDENTIALS),
        (404, "ContainerNotFound", AccessFault.BUCKET),
        (400, "InvalidResourceName", AccessFault.BUCKET),
    ],
)
def test_a_refusal_says_what_to_change(
    refusing: Refusing, scheme: str, status: int, code: str, fault: AccessFault
) -> None:
    refusing.status = status
    refusing.body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""
    store = BlobStore(_config(scheme, refusing.url))

    for attempt in (lambda: store.read("key"), lambda: store.write_bytes("key", b"x", "text/plain")):
        with pytest.raises(StoreAccessError) as error:
            attempt()
        assert error.value.fault is fault


@pytest.mark.parametrize(
    ("code", "rest", "shown"),
    [
        (
            "PermanentRedirect",
            "<Message>Use\n the endpoint</Message><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>",
            "PermanentRedirect: Use the endpoint: Endpoint b.s3.eu-west-1.amazonaws.com",
        ),
        (
            "AuthenticationFailed",
            "<Message>Check &apos;Authorization&apos;.\nRequestId:1\nTime:2</Message>"
            "<AuthenticationErrorDetail>Signature did not match.</AuthenticationErrorDetail>",
            "AuthenticationFailed: Check 'Authorization'.: Signature did not match.",
        ),
    ],
)
def test_what_says_what_to_do_is_kept_of_an_answer(
    refusing: Refusing, code: str, rest: str, shown: str
) -> None:
    refusing.status = 400
    refusing.body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code>{rest}</Error>".encode()

    with pytest.raises(StoreAccessError) as error:
        BlobStore(_config("s3", refusing.url)).read("key")

    assert str(error.value) == f"s3://bucket/key: {shown}"


def test_the_names_in_a_request_are_not_taken_for_the_answer(refusing: Refusing) -> None:
    refusing.status, refusing.body = 404, b"<Error><Code>NoSuchKey</Code></Error>"
    store = BlobStore(StoreConfig("s3://bucket/AccessDenied/", refusing.url, "eu", "key", "secret"))

    with pytest.raises(StoreError) as error:
        store.read("NoSuchBucket/InvalidAccessKeyId.parquet")

    assert not isinstance(error.value, StoreAccessError)


@pytest.mark.parametrize("scheme", ["s3", "az"])
def test_a_certificate_that_nobody_trusts_has_to_be_changed(untrusted: Refusing, scheme: str) -> None:
    with pytest.raises(StoreAccessError, match="InvalidCertificate: UnknownIssuer") as error:
        BlobStore(_config(scheme, untrusted.url)).read("key")
    assert error.value.fault is AccessFault.ENDPOINT


def test_https_to_a_store_without_tls_has_to_be_changed(refusing: Refusing) -> None:
    with pytest.raises(StoreAccessError) as error:
        BlobStore(_config("s3", refusing.url.replace("http:", "https:"))).read("key")
    assert error.value.fault is AccessFault.ENDPOINT


@pytest.mark.parametrize("scheme", ["s3", "az"])
@pytest.mark.parametrize(
    ("endpoint", "cause"),
    [
        ("http://store.invalid", "failed to lookup address information"),
        ("http://127.0.0.1:1", "Connection refused"),
    ],
)
def test_why_a_store_is_not_reached_is_said(scheme: str, endpoint: str, cause: str) -> None:
    with pytest.raises(StoreUnreachableError, match=cause) as error:
        BlobStore(_config(scheme, endpoint)).read("key")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "token"), [("no base64!", None), (None, "no-signature")])
def test_credentials_that_nobody_can_use_have_to_be_changed(
    refusing: Refusing, key: str | None, token: str | None
) -> None:
    config = StoreConfig(
        "az://bucket/", refusing.url, account_name="account", account_key=key, sas_token=token
    )
    with pytest.raises(StoreAccessError) as error:
        BlobStore(config).read("key")
    assert error.value.fault is AccessFault.CREDENTIALS


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ('{"error": {"code": 403, "errors": [{"reason": "forbidden"}]}}', AccessFault.CREDENTIALS),
        ("status code: 403 Forbidden: ", AccessFault.CREDENTIALS),
        ('{"error": "invalid_grant", "error_description": "Invalid JWT"}', AccessFault.CREDENTIALS),
        ("error sending request: InvalidCertificate: UnknownIssuer", AccessFault.ENDPOINT),
        ("<Code>SlowDown</Code>", None),
        ("status code: 503 Service Unavailable: ", None),
        ("<Code>NoSuchKey</Code>", None),
        ("dns error: failed to lookup address information", None),
        ("Connection refused (os error 111)", None),
    ],
)
def test_only_what_somebody_has_to_change_counts(answer: str, fault: AccessFault | None) -> None:
    assert access_fault(answer) is fault
