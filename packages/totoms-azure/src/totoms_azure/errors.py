"""From the errors of the SDK's HTTP clients to ours: one table for files, secrets and credentials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from azure.core import exceptions as http

from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable

_TABLE: Final[tuple[tuple[type[Exception], type[BackendError]], ...]] = (
    (http.ResourceNotFoundError, NotFound),
    (http.ClientAuthenticationError, AccessDenied),  # no credentials, or refused ones
    (http.ResourceExistsError, PreconditionFailed),
    (http.ResourceModifiedError, PreconditionFailed),
    (http.ServiceRequestError, Unavailable),
    (http.ServiceResponseError, Unavailable),
    (http.IncompleteReadError, Unavailable),
    (OSError, Unavailable),
    (TimeoutError, Unavailable),
)
"""Most special first. See https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2."""

_BY_STATUS: Final = {
    401: AccessDenied, 403: AccessDenied, 404: NotFound, 408: Unavailable, 412: PreconditionFailed, 429: Unavailable,
}  # fmt: skip


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the error of ours for one of the SDK's; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the secret", "the topic".
        resource: Its name.
    """
    if isinstance(error, BackendError):
        return error
    return _class_for(error)(f"Azure failed for {what} {resource!r}: {_called(error)}.", resource=resource)


def _class_for(error: Exception) -> type[BackendError]:
    status = getattr(error, "status_code", None)
    if isinstance(error, http.ClientAuthenticationError) and _is_away(error):
        return Unavailable
    if type(error) is http.HttpResponseError and error.response is None:  # an answer that broke again and again
        return Unavailable
    if isinstance(error, http.HttpResponseError) and isinstance(status, int):
        return _BY_STATUS.get(status, Unavailable if status >= 500 else BackendError)
    return next((ours for theirs, ours in _TABLE if isinstance(error, theirs)), BackendError)


def _called(error: Exception) -> str:
    # Codes such as AuthorizationPermissionMismatch are what Azure's pages explain; never the message, which may quote.
    code = getattr(error, "error_code", None) or getattr(getattr(error, "error", None), "code", None)
    code = getattr(code, "value", code)
    return f"{type(error).__name__} ({code})" if isinstance(code, str) and code.isalnum() else type(error).__name__


def _is_away(error: BaseException) -> bool:
    # When no token can be had, azure-identity says so in one error, whether they are refused or nobody answers.
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, http.ServiceRequestError | http.ServiceResponseError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextlib.contextmanager
def told_as(what: str, resource: str) -> Iterator[None]:
    """Raise what the SDK raises in the block as an error of ours; the arguments are those of `translate`."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise translate(error, what, resource) from error
