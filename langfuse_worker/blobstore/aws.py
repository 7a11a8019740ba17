"""Where the credentials of S3 come from.

What obstore finds by itself (environment, web identity, container, instance profile) is left to it. Roles
that are assumed need AWS's own library, and so do ambient credentials for an endpoint that is reached through
the gate, which lets nobody reach the addresses that give them out.
"""

from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from langfuse_worker.blobstore.config import StoreConfig
from langfuse_worker.blobstore.errors import StoreAccessError

if TYPE_CHECKING:
    from obstore.store import S3Credential

S3Credentials = Callable[[], "S3Credential"]

_SESSION_NAME = "langfuse-export"
# botocore renews credentials that have less than that left, so this much is always safe to keep.
_KEEP = timedelta(minutes=10)


def s3_credentials(config: StoreConfig) -> S3Credentials | None:
    """What obstore asks for credentials, and again when they are about to expire; None: it finds its own.

    Raises:
        StoreAccessError: boto3 is needed and not installed, or there are no ambient credentials.
    """
    if config.assume_role_arn:
        return _assumed_role(config, config.assume_role_arn)
    if config.access_key_id and config.secret_access_key:
        return _static(config.access_key_id, config.secret_access_key, config.session_token)
    return _ambient(config) if config.untrusted_endpoint else None


def _static(access_key_id: str, secret_access_key: str, session_token: str | None) -> S3Credentials:
    """Keys as they are. As options, obstore would mix them with a token from the environment."""
    credentials: S3Credential = {
        "access_key_id": access_key_id,
        "secret_access_key": secret_access_key,
        "token": session_token,
        "expires_at": None,
    }
    return lambda: credentials


def _assumed_role(config: StoreConfig, role: str) -> S3Credentials:
    boto3, auth = _boto3("assume_role_arn")
    session = boto3.session.Session(
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        aws_session_token=config.session_token,
        region_name=config.region,
    )
    external = {"ExternalId": config.external_id} if config.external_id else {}
    assume = auth.StsCredentialProvider(session, RoleArn=role, RoleSessionName=_SESSION_NAME, **external)

    def credentials() -> "S3Credential":
        assumed: S3Credential = assume()
        expires = assumed["expires_at"]
        # boto3 has a time zone of its own, which obstore does not take
        return {**assumed, "expires_at": expires.astimezone(UTC) if expires else None}

    return credentials


def _ambient(config: StoreConfig) -> S3Credentials:
    boto3, auth = _boto3("ambient credentials for an endpoint from the database")
    try:
        return auth.Boto3CredentialProvider(boto3.session.Session(), ttl=_KEEP)
    except ValueError:
        raise StoreAccessError(f"{config.url}: there are no keys, and no ambient credentials") from None


def _boto3(what: str) -> tuple[Any, Any]:
    try:
        import boto3  # noqa: PLC0415
        import obstore.auth.boto3 as auth  # noqa: PLC0415
    except ImportError:
        raise StoreAccessError(f"{what}: needs boto3; pip install 'langfuse-export[aws]'") from None
    return boto3, auth
