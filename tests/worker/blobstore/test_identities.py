"""Azure and Google Cloud Storage: the ways in."""

from dataclasses import replace
from pathlib import Path

import pytest

from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError, StoreAccessError, StoreConfig
from langfuse_worker.settings import settings
from langfuse_worker.store_faults import AccessFault
from tests.servers.azure import AzureServer
from tests.servers.google import GoogleServer
from tests.servers.s3 import S3Fault, S3Proxy

BUCKET = "identities"


@pytest.mark.parametrize("mark", ["", "?"], ids=["as the CLI prints it", "as the portal shows it"])
def test_a_shared_access_signature_gets_in(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    azure.create_container(BUCKET)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "b2Ygc29tZWJvZHkgZWxzZQ==")  # which must not be used
    signed = replace(
        azure.store_config(BUCKET), account_key=None, sas_token=mark + azure.sas_token(permissions="rwdlac")
    )

    BlobStore(signed).write("a.txt", iter([b"hello"]), "text/plain")

    assert azure.read(BUCKET, "a.txt") == b"hello"
    read_only = replace(signed, sas_token=azure.sas_token(permissions="rl"))
    with pytest.raises(StoreAccessError) as error:
        BlobStore(read_only).write("b.txt", iter([b"x"]), "text/plain")
    assert error.value.fault is AccessFault.CREDENTIALS
    assert azure.keys(BUCKET) == ["a.txt"]


@pytest.mark.parametrize("untrusted", [False, True], ids=["trusted", "through the gate"])
def test_a_shared_access_signature_deletes_the_one_object(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch, untrusted: bool
) -> None:
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_IPS", "127.0.0.1")
    settings.cache_clear()
    azure.create_container(BUCKET)
    signed = replace(
        azure.store_config(BUCKET, "some/"),
        account_key=None,
        sas_token=azure.sas_token(),
        untrusted_endpoint=untrusted,
    )
    store = BlobStore(signed)
    for key in ("a?b #ü%20.txt", "b.txt"):
        store.write_bytes(key, b"x", "text/plain")

    store.delete("a?b #ü%20.txt")

    assert azure.keys(BUCKET) == ["some/b.txt"]
    with pytest.raises(ObjectNotFoundError):
        store.delete("a?b #ü%20.txt")
    read_only = azure.sas_token(permissions="rl")
    with pytest.raises(StoreAccessError) as error:
        BlobStore(replace(signed, sas_token=read_only)).delete("b.txt")
    assert error.value.fault is AccessFault.CREDENTIALS
    assert read_only.rpartition("sig=")[2] not in str(error.value)


def test_deletes_with_a_shared_access_signature_share_a_connection(s3_proxy: S3Proxy) -> None:
    s3_proxy.faults = [S3Fault("DELETE", status=202)]
    store = BlobStore(
        StoreConfig("az://archive/", endpoint=s3_proxy.url, account_name="account", sas_token="sig=s")
    )

    for key in ("a", "b", "c"):
        store.delete(key)

    assert [request.path for request in s3_proxy.requests] == ["/archive/a", "/archive/b", "/archive/c"]
    assert len({request.client_port for request in s3_proxy.requests}) == 1


def test_a_managed_identity_is_ambient(s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azurite takes tokens with TLS only, so the store is one that says yes to everything."""
    monkeypatch.setenv("AZURE_MSI_ENDPOINT", s3_proxy.url + "/identity")
    token = '{"access_token": "token-of-the-machine", "expires_on": "4102444800", "token_type": "Bearer"}'
    s3_proxy.faults = [S3Fault("GET", "/identity", 200, token), S3Fault("PUT", "/exports/", 201)]

    _write_to_azure(s3_proxy)

    [put] = [request for request in s3_proxy.requests if request.method == "PUT"]
    assert put.headers["authorization"] == "Bearer token-of-the-machine"


def test_a_workload_identity_is_ambient(
    s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As AKS gives one to a service account."""
    (tmp_path / "token").write_text("token-of-the-pod")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_CLIENT_ID", "the-client")
    monkeypatch.setenv("AZURE_TENANT_ID", "the-tenant")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", s3_proxy.url)
    token = '{"access_token": "token-of-the-client", "expires_in": 3600, "token_type": "Bearer"}'
    s3_proxy.faults = [S3Fault("POST", "/the-tenant/", 200, token), S3Fault("PUT", "/exports/", 201)]

    _write_to_azure(s3_proxy)

    [asked] = [request for request in s3_proxy.requests if request.method == "POST"]
    assert b"client_assertion=token-of-the-pod" in asked.body
    assert b"client_id=the-client" in asked.body
    [put] = [request for request in s3_proxy.requests if request.method == "PUT"]
    assert put.headers["authorization"] == "Bearer token-of-the-client"


def test_a_wrong_key_of_the_account_is_for_somebody_to_mend(azure: AzureServer) -> None:
    azure.create_container(BUCKET)
    with pytest.raises(StoreAccessError, match=f"az://{BUCKET}/a.txt") as error:
        BlobStore(replace(azure.store_config(BUCKET), account_key="AAAA")).write("a.txt", iter([b"x"]), "t/p")
    assert error.value.fault is AccessFault.CREDENTIALS


@pytest.mark.parametrize("as_file", [True, False], ids=["path", "JSON"])
def test_a_service_account_signs_for_itself(
    google: GoogleServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_file: bool
) -> None:
    google.create_bucket(BUCKET)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")  # which must not be asked
    config = google.store_config(BUCKET)
    if as_file:
        (tmp_path / "key.json").write_text(google.service_account)
        config = replace(config, service_account=str(tmp_path / "key.json"))

    BlobStore(config).write("a.txt", iter([b"hello"]), "text/plain")

    assert google.read(BUCKET, "a.txt") == b"hello"


def test_the_identity_of_the_machine_is_ambient_at_google(
    google: GoogleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.create_bucket(BUCKET)
    monkeypatch.setenv("GCE_METADATA_HOST", google.url.removeprefix("http://"))
    BlobStore(replace(google.store_config(BUCKET), service_account=None)).write_bytes("a", b"x", "text/plain")
    assert google.keys(BUCKET) == ["a"]


def test_an_account_that_may_not_write_is_for_somebody_to_mend(google: GoogleServer) -> None:
    google.create_bucket(BUCKET)
    google.denied = True
    with pytest.raises(StoreAccessError, match=f"gs://{BUCKET}/a") as error:
        BlobStore(google.store_config(BUCKET)).write("a", iter([b"x"]), "text/plain")
    assert error.value.fault is AccessFault.CREDENTIALS
    assert google.keys(BUCKET) == []


def _write_to_azure(s3_proxy: S3Proxy) -> None:
    """Write as far as a store that says yes to everything lets one."""
    azure = StoreConfig("az://exports/", endpoint=s3_proxy.url, account_name="account")
    with pytest.raises(Exception, match=r"(?i)etag"):  # that the store's answer lacks
        BlobStore(azure).write_bytes("a.txt", b"x", "text/plain")
