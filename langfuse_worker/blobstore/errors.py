"""What can go wrong with a store, and which of it the library's exceptions mean."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

from obstore import exceptions

from langfuse_worker.endpoints import EndpointError, EndpointReason
from langfuse_worker.store_faults import AccessFault, access_fault


class StoreError(Exception):
    """The blob store failed; trying again may help."""


class StoreAccessError(StoreError):
    """The blob store says no, or may not be used, and somebody has to change something.

    Attributes:
        fault: what has to be changed.
    """

    def __init__(self, message: str, fault: AccessFault = AccessFault.CREDENTIALS) -> None:
        super().__init__(message)
        self.fault = fault


class StoreUnreachableError(StoreError):
    """There was no answer of the blob store: a name without an address, a refused connection, a timeout."""


class StoreFullError(StoreError):
    """There is no room for an object: a full disk, or a quota that is used up."""


class ObjectTooLargeError(StoreError):
    """The stream does not fit into an upload's number of parts."""


class ObjectNotFoundError(StoreError):
    """There is no such object."""


_ACCESS = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
)
# The latter two are MinIO's.
_FULL = re.compile(
    rf"\(os error ({errno.ENOSPC}|{errno.EDQUOT})\)|\bXMinioStorageFull\b|\bXMinioAdminBucketQuotaExceeded\b"
)
_DIRECTORY_REFUSES = re.compile(rf"\(os error ({errno.EACCES}|{errno.EPERM}|{errno.EROFS}|{errno.ENOTDIR})\)")
# Where the debug dump of a request without an answer says why, which the message does not.
_CAUSE = re.compile(r"reqwest::Error \{.*\b(?:source|error): (.*)", re.DOTALL)
_QUOTED = re.compile(r'"([^"]*)"')
# What obstore writes between the request, whose names are somebody's own words, and the store's answer.
_ANSWER = re.compile(r" in [\d.]+\w*s - ")
# Of an error's XML, what says what is wrong and what to do; S3 names the right endpoint and region apart.
_CODE = re.compile(r"<Code>(.*?)</Code>", re.DOTALL)
_SAID = re.compile(r"<(Message|Details|AuthenticationErrorDetail|Endpoint|Region)>(.*?)</\1>", re.DOTALL)
_NAMED = ("Endpoint", "Region")


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what obstore raises into what this package promises, with the object's address."""
    try:
        yield
    except StoreError:
        raise
    except EndpointError as error:
        raise refused(uri, error) from error
    except Exception as error:
        said, _, dump = str(error).partition("\n\nDebug source:")
        cause = _cause(dump)
        said = f"{said.strip()}: {cause}" if cause else said.strip()
        answer = _ANSWER.split(said)[-1]
        message = f"{uri}: {(_readable(answer) or said)[:1000]}"
        if _FULL.search(answer):
            raise StoreFullError(message) from error
        fault = access_fault(answer)
        if uri.startswith("file:") and _DIRECTORY_REFUSES.search(answer):
            fault = AccessFault.BUCKET
        if fault or isinstance(error, _ACCESS):
            raise StoreAccessError(message, fault or AccessFault.CREDENTIALS) from error
        if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
            raise ObjectNotFoundError(message) from error
        if cause:
            raise StoreUnreachableError(message) from error
        if isinstance(error, exceptions.BaseError | OSError):
            raise StoreError(message) from error
        raise


def unusable_directory(message: str) -> StoreError:
    """Why there is no directory, as a store's failure."""
    return StoreFullError(message) if _FULL.search(message) else StoreAccessError(message, AccessFault.BUCKET)


def refused(uri: str, error: EndpointError) -> StoreError:
    """An endpoint that is refused as a store's failure; only a name that has no address may get one later."""
    message = f"{uri}: {error}"
    if error.reason is EndpointReason.DNS_LOOKUP_FAILED:
        return StoreError(message)
    return StoreAccessError(message, AccessFault.ENDPOINT)


def _readable(answer: str) -> str | None:
    """Code and message of an answer in XML, in one line; None if it has none."""
    code = _CODE.search(answer)
    if code is None:
        return None
    said: list[str] = [code[1]]
    for name, text in _SAID.findall(answer):
        # Azure ends a message with lines of the request's id and time.
        line = " ".join(text.partition("\nRequestId:")[0].split())
        said.append(f"{name} {line}" if name in _NAMED else line)
    return unescape(": ".join(filter(None, said)))


def _cause(dump: str) -> str | None:
    """Why a request had no answer, from obstore's debug dump; None if it had one."""
    found = _CAUSE.search(dump)
    if found is None:
        return None
    return ": ".join(_QUOTED.findall(found[1]) or re.findall(r"\w+", found[1]))
