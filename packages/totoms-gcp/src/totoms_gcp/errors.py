"""Errors of Google's libraries, mapped to totoms' errors by one table for gRPC and HTTP."""

from __future__ import annotations

from http.client import HTTPException
from typing import Final

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from urllib3.exceptions import HTTPError

from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable
from totoms.plugin import error_mapping
from totoms_gcp.private_api import lacks_token

_TABLE: Final[tuple[tuple[type[Exception], type[BackendError]], ...]] = (
    (api.NotFound, NotFound),
    (api.Unauthorized, AccessDenied),  # Unauthenticated is one
    (api.Forbidden, AccessDenied),  # PermissionDenied is one
    (api.PreconditionFailed, PreconditionFailed),
    (api.RequestRangeNotSatisfiable, BackendError),
    (api.TooManyRequests, Unavailable),  # ResourceExhausted is one
    (api.Aborted, Unavailable),
    (api.DeadlineExceeded, Unavailable),
    (api.ServerError, Unavailable),
    (api.RetryError, Unavailable),
    (api.GoogleAPICallError, BackendError),
    (auth.TransportError, Unavailable),
    (auth.GoogleAuthError, AccessDenied),  # no credentials, or refused ones
    (OSError, Unavailable),  # also what `requests` raises
    (HTTPError, Unavailable),
    (HTTPException, Unavailable),
)
"""The most specific first. See https://cloud.google.com/apis/design/errors for what each means."""

_REQUEST_TIMEOUT: Final = 408


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the BackendError for an error of Google's libraries; raise it ``from`` that one.

    Its message has the kind and the codes of the error, but not its text, which may quote what was sent.

    Args:
        error: What the library raised.
        what: What it is about, for a person: "the secret", "the topic".
        resource: Its name.
    """
    if isinstance(error, BackendError):
        return error
    error = _cause(error)
    return _class_for(error)(f"Google Cloud failed for {what} {resource!r}: {_describe(error)}.", resource=resource)


mapped_errors = error_mapping(translate)
"""Raises the errors of Google's libraries in its block as BackendErrors. The arguments are those of `translate`."""


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed another time: those errors that become Unavailable."""
    return issubclass(_class_for(_cause(error)), Unavailable)


def _cause(error: Exception) -> Exception:
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    response = getattr(error, "response", None)
    if not isinstance(error, api.GoogleAPIError | OSError) and getattr(response, "status_code", 0) >= 400:
        error = api.from_http_response(response)  # the storage client has other errors for uploads
    return error


def _class_for(error: Exception) -> type[BackendError]:
    if isinstance(error, api.GoogleAPICallError) and error.code == _REQUEST_TIMEOUT:
        return Unavailable
    if isinstance(error, auth.GoogleAuthError) and error.retryable:
        return Unavailable
    if isinstance(error, api.ServiceUnavailable) and lacks_token(error):
        return AccessDenied
    return next((mapped for kind, mapped in _TABLE if isinstance(error, kind)), BackendError)


def _describe(error: Exception) -> str:
    name = type(error).__name__
    if not isinstance(error, api.GoogleAPICallError):
        return name
    if isinstance(error, api.ServiceUnavailable) and lacks_token(error):
        return "no credentials"
    status = error.grpc_status_code.name if error.grpc_status_code is not None else ""
    codes = [str(int(error.code)) if error.code else "", status, str(error.reason or "")]
    known = " ".join(code for code in codes if code)
    return f"{name} ({known})" if known else name
