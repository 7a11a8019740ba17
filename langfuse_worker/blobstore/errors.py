"""What can go wrong with a store, and which of it the library's exceptions mean."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

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


class ObjectTooLargeError(StoreError):
    """The stream does not fit into an upload's number of parts."""


class ObjectNotFoundError(StoreError):
    """There is no such object."""


_ACCESS = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
)
# What obstore writes between the request, whose names are somebody's own words, and the store's answer.
_ANSWER = re.compile(r" in [\d.]+\w*s - ")


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
        message = f"{uri}: {_without_dump(error).strip()[:1000]}"
        fault = access_fault(_ANSWER.split(_without_dump(error))[-1])
        if fault or isinstance(error, _ACCESS):
            raise StoreAccessError(message, fault or AccessFault.CREDENTIALS) from error
        if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
            raise ObjectNotFoundError(message) from error
        if isinstance(error, exceptions.BaseError | OSError):
            raise StoreError(message) from error
        raise


def refused(uri: str, error: EndpointError) -> StoreError:
    """An endpoint that is refused as a store's failure; only a name that has no address may get one later."""
    message = f"{uri}: {error}"
    if error.reason is EndpointReason.DNS_LOOKUP_FAILED:
        return StoreError(message)
    return StoreAccessError(message, AccessFault.ENDPOINT)


def _without_dump(error: Exception) -> str:
    """The message without the debug dump that obstore appends."""
    return str(error).partition("\n\nDebug source:")[0]
