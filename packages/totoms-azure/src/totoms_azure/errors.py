"""Maps the errors of the SDK's HTTP clients, for files, secrets and credentials, to those of totoms."""

from __future__ import annotations

from typing import Final

from azure.core import exceptions as http

from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable
from totoms.plugin import error_mapping

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
"""Most specific first. See https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2."""
_BY_STATUS: Final = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    408: Unavailable,
    412: PreconditionFailed,
    429: Unavailable,
}


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the BackendError for an error of the SDK; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the secret", "the topic".
        resource: Its name.
    """
    if isinstance(error, BackendError):
        return error
    return _class_for(error)(f"Azure failed for {what} {resource!r}: {_name_of(error)}.", resource=resource)


mapped_errors = error_mapping(translate)
"""Raises the SDK's errors in its block as BackendErrors. The arguments are those of `translate`."""


def _class_for(error: Exception) -> type[BackendError]:
    status = getattr(error, "status_code", None)
    if isinstance(error, http.ClientAuthenticationError) and _is_outage(error):
        return Unavailable
    if type(error) is http.HttpResponseError and error.response is None:  # each answer broke off
        return Unavailable
    if isinstance(error, http.HttpResponseError) and isinstance(status, int):
        return _BY_STATUS.get(status, Unavailable if status >= 500 else BackendError)
    return next((ours for theirs, ours in _TABLE if isinstance(error, theirs)), BackendError)


def _name_of(error: Exception) -> str:
    # Azure's documentation explains codes such as AuthorizationPermissionMismatch. The message may quote data.
    code = getattr(error, "error_code", None) or getattr(getattr(error, "error", None), "code", None)
    code = getattr(code, "value", code)
    name = type(error).__name__
    if isinstance(code, str) and code.isalnum():
        return f"{name} ({code})"
    status = getattr(error, "status_code", None)
    return f"{name} ({status})" if status else name


def _is_outage(error: BaseException) -> bool:
    # azure-identity raises the same error whether credentials are refused or no server answers.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, http.ServiceRequestError | http.ServiceResponseError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
