"""Opens obstore's stores as a configuration says."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from langfuse_worker.blobstore.aws import S3Credentials, s3_credentials
from langfuse_worker.blobstore.config import SCHEMES, StoreConfig
from langfuse_worker.blobstore.errors import StoreAccessError, unusable_directory
from langfuse_worker.blobstore.gate import Guard
from langfuse_worker.store_faults import AccessFault

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config


def open_store(config: StoreConfig, guard: Guard | None) -> Any:
    """The store of obstore.

    Args:
        config: which one.
        guard: what checks every address before it is connected to; None for a trusted endpoint.

    Raises:
        EndpointError: the endpoint is refused.
        StoreAccessError: the configuration cannot work, or the directory cannot be made.
        StoreFullError: there is no room for the directory.
    """
    if config.scheme == "file":
        return _directory(config)
    openers = {"s3": _s3, "az": _azure, "gs": _google}
    if config.scheme not in openers:
        message = f"{config.url}: must start with {', '.join(s + '://' for s in SCHEMES)}"
        raise StoreAccessError(message, AccessFault.ENDPOINT)
    retry: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(minutes=3)}
    return openers[config.scheme](config, _client(config, guard), retry)


def _directory(config: StoreConfig) -> LocalStore:
    if config.untrusted_endpoint:
        message = f"{config.url}: a directory of this machine cannot be chosen by a user"
        raise StoreAccessError(message, AccessFault.ENDPOINT)
    try:
        return LocalStore(Path(config.path), mkdir=True, automatic_cleanup=True)
    except OSError as error:
        raise unusable_directory(f"{config.url}: cannot make the directory: {error}") from error


def _client(config: StoreConfig, guard: Guard | None) -> "ClientConfig":
    client: ClientConfig = {"timeout": timedelta(minutes=10), "connect_timeout": timedelta(seconds=10)}
    if (config.endpoint or "").startswith("http://"):
        client["allow_http"] = True
    if guard is not None:
        _refuse_foreign_identity(config)
        if config.endpoint:
            guard.check(config.endpoint)
        client["proxy_url"] = guard.proxy_url
    return client


def _refuse_foreign_identity(config: StoreConfig) -> None:
    """A bearer token of this machine must not be sent to where a user says."""
    own = {"az": config.account_key or config.sas_token, "gs": config.service_account, "s3": True}
    if not own.get(config.scheme):
        raise StoreAccessError(f"{config.url}: a store that a user has chosen needs credentials of its own")
    if config.service_account and not config.service_account_key:
        raise StoreAccessError(f"{config.url}: service_account must be the JSON itself, not a path")


def _s3(config: StoreConfig, client: "ClientConfig", retry: "RetryConfig") -> S3Store:
    in_host = _bucket_in_host(config)
    options: S3Config = {
        "virtual_hosted_style_request": in_host,
        # SHA-256 of every part would double the CPU of an upload; TLS and the manifest's sum cover it.
        "unsigned_payload": not (config.endpoint or "").startswith("http://"),
        # Only single objects are deleted, and Google's S3 interface has no other way.
        "disable_bulk_delete": True,
    }
    if config.endpoint:
        options["endpoint"] = _with_bucket(config) if in_host else config.endpoint
    if config.region:
        options["region"] = config.region
    if config.sse_kms_key_id:
        options["server_side_encryption"] = "aws:kms"
        options["sse_kms_key_id"] = config.sse_kms_key_id
    credentials: S3Credentials | None = s3_credentials(config)
    return S3Store(
        config.bucket,
        config=options,
        client_options=client,
        retry_config=retry,
        credential_provider=credentials,
    )


def _bucket_in_host(config: StoreConfig) -> bool:
    if config.force_path_style or "." in config.bucket:  # whose host would not match the certificate
        return False
    return not (config.endpoint and _is_address(config.endpoint))


def _with_bucket(config: StoreConfig) -> str:
    parts = urlsplit(config.endpoint or "")
    return parts._replace(netloc=f"{config.bucket}.{parts.netloc}").geturl()


def _is_address(endpoint: str) -> bool:
    try:
        ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True


def _azure(config: StoreConfig, client: "ClientConfig", retry: "RetryConfig") -> AzureStore:
    options: AzureConfig = {}
    if config.account_name:
        options["account_name"] = config.account_name
    if config.endpoint:
        options["endpoint"] = config.endpoint.rstrip("/")
    if config.account_key:
        options |= {"account_key": config.account_key, "credential_type": "access_key"}
    elif config.sas_token:
        options |= {"sas_key": config.sas_token.lstrip("?"), "credential_type": "sas_token"}
    return AzureStore(config.bucket, config=options, client_options=client, retry_config=retry)


def _google(config: StoreConfig, client: "ClientConfig", retry: "RetryConfig") -> GCSStore:
    options: GCSConfig = {}
    if config.endpoint:
        options["base_url"] = config.endpoint.rstrip("/")
    if config.service_account:
        key = "service_account_key" if config.service_account_key else "service_account"
        options[key] = config.service_account
    return GCSStore(config.bucket, config=options, client_options=client, retry_config=retry)
