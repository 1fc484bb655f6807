"""From the SDK's errors to ours: one table, for gRPC and HTTP alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.client import HTTPException
from typing import Final

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from urllib3.exceptions import HTTPError

from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable

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
    (TimeoutError, Unavailable),
)
"""Most special first. See https://cloud.google.com/apis/design/errors for what each means."""

_AGAIN: Final = (408,)
_NO_TOKEN: Final = "Getting metadata from plugin failed"


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the error of ours for one of the SDK's; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the secret", "the topic".
        resource: Its name.
    """
    if isinstance(error, BackendError):
        return error
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        error = error.cause  # what went wrong, again and again
    response = getattr(error, "response", None)
    if not isinstance(error, api.GoogleAPIError | OSError) and getattr(response, "status_code", 0) >= 400:
        error = api.from_http_response(response)  # the storage client has errors of its own for uploads
    return _class_for(error)(f"Google Cloud failed for {what} {resource!r}: {_called(error)}.", resource=resource)


def _class_for(error: Exception) -> type[BackendError]:
    if isinstance(error, api.GoogleAPICallError) and error.code in _AGAIN:
        return Unavailable
    if isinstance(error, auth.GoogleAuthError) and error.retryable:
        return Unavailable
    if _without_token(error):
        return AccessDenied
    return next((ours for theirs, ours in _TABLE if isinstance(error, theirs)), BackendError)


def _called(error: Exception) -> str:
    return "no credentials" if _without_token(error) else type(error).__name__


def _without_token(error: Exception) -> bool:
    # gRPC asks for a token when it calls, and says that the service is unavailable when there is none to be had; that
    # those who give tokens are away it tells in the words of `requests`.
    message = str(error) if isinstance(error, api.ServiceUnavailable) else ""
    return _NO_TOKEN in message and "ConnectionPool" not in message


@contextlib.contextmanager
def told_as(what: str, resource: str) -> Iterator[None]:
    """Raise what the SDK raises in the block as an error of ours; the arguments are those of `translate`."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise translate(error, what, resource) from error
