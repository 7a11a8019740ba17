"""Tells from a store's answer whether its owner has to act: credentials, the bucket, or the endpoint.

Codes are those of the S3, Azure Blob and Google Cloud Storage APIs.
"""

import re
from enum import StrEnum


class AccessFault(StrEnum):
    """What somebody has to mend before any object can be written."""

    CREDENTIALS = "credentials"
    BUCKET = "bucket"
    ENDPOINT = "endpoint"


_BUCKET = (
    "NoSuchBucket",
    "InvalidBucketName",
    "AllAccessDisabled",
    "UserProjectAccountProblem",  # GCS: billing of the bucket's project
    "ContainerNotFound",
    "ContainerDisabled",
    "InvalidResourceName",
)
_CREDENTIALS = (
    "AccessDenied",
    "AccountProblem",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "ExpiredTokenException",  # STS
    "InvalidAccessKeyId",
    "InvalidIdentityToken",  # STS
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "AccountIsDisabled",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "InsufficientAccountPermissions",
    "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
    "PublicAccessNotPermitted",
    "Invalid Access Key",  # obstore, of an account key that is no base64
    "Failed to read token file",  # obstore, of a web identity whose token is not mounted
    "SAS query pair",  # obstore, of a text that is no signature
    "invalid_grant",  # OAuth: a revoked service account key
)
_ENDPOINT = (
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "incorrectly configured region",  # obstore, of a redirect without a target
    "InvalidCertificate",
    "InvalidContentType",  # TLS to a port without it
    "relative URL without a base",
    "URL scheme is not allowed",
)
# A status alone, as HEAD answers have no body; 403 of a GCS JSON answer says `"reason": "forbidden"`.
_STATUS = re.compile(r"status(?: code)?: 40[13]\b|\"reason\":\s*\"forbidden\"")


def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words))


_PATTERNS = {
    AccessFault.BUCKET: _any_of(_BUCKET),
    AccessFault.ENDPOINT: _any_of(_ENDPOINT),
    AccessFault.CREDENTIALS: _any_of(_CREDENTIALS),
}


def access_fault(answer: str) -> AccessFault | None:
    """What to mend, from the text of a store's error; None for faults of the moment."""
    for fault, pattern in _PATTERNS.items():
        if pattern.search(answer):
            return fault
    return AccessFault.CREDENTIALS if _STATUS.search(answer) else None
