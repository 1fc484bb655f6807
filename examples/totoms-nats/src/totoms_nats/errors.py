"""The table from NATS' errors to those of totoms, most specific first."""

from __future__ import annotations

from typing import Final

import nats.errors
import nats.js.errors

from totoms.errors import AccessDenied, BackendError, MessageTooLarge, NotFound, PreconditionFailed, Unavailable
from totoms.plugin import error_mapping
from totoms_nats.private_api import is_refused_login

_WRONG_SEQUENCE: Final = (10071, 10164)
"""JetStream's codes for a write that expected another message to be the last one."""
_FULL: Final = (10023, 10047, 10077)
"""JetStream's codes for a stream or server that has no room."""

_TABLE: Final[tuple[tuple[type[Exception], type[BackendError]], ...]] = (
    (nats.errors.MaxPayloadError, MessageTooLarge),
    (nats.errors.AuthorizationError, AccessDenied),
    (nats.errors.InvalidUserCredentialsError, AccessDenied),
    (nats.errors.SecureConnRequiredError, AccessDenied),
    (nats.js.errors.NoStreamResponseError, NotFound),
    (nats.errors.NoRespondersError, NotFound),
    (nats.js.errors.NotFoundError, NotFound),
    (nats.js.errors.ServiceUnavailableError, Unavailable),
    (nats.js.errors.APIError, BackendError),
    (nats.errors.BadSubjectError, NotFound),
    (nats.errors.BadHeaderError, BackendError),
    (nats.errors.Error, Unavailable),  # disconnected, timed out, closed in the middle
    (TimeoutError, Unavailable),
    (OSError, Unavailable),
)


def translate(error: Exception, action: str, resource: str | None = None) -> BackendError | None:
    """Return the error of totoms for an error of NATS, or None for any other error.

    Args:
        error: What was raised.
        action: What failed, for the message. The error's own text is left out: it may quote a subject or payload.
        resource: The name of the stream, subject, key or file.
    """
    if isinstance(error, nats.js.errors.APIError):
        if error.err_code in _WRONG_SEQUENCE:
            return PreconditionFailed(f"{action}: another process wrote it in the meantime.", resource=resource)
        if error.err_code in _FULL:
            return Unavailable(f"{action}: JetStream has no room left.", resource=resource)
    if is_refused_login(error):
        return AccessDenied(f"{action}: the server refused these credentials.", resource=resource)
    for kind, made in _TABLE:
        if isinstance(error, kind):
            code = getattr(error, "err_code", None)
            return made(f"{action}: {type(error).__name__}{f' {code}' if code else ''}.", resource=resource)
    return None


mapped_errors = error_mapping(translate)
"""Raises NATS' errors in its block as those of totoms. The arguments are those of `translate`."""
