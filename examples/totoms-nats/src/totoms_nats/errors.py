"""One table from NATS' errors to ours, most special first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import nats.errors
import nats.js.errors

from totoms.errors import AccessDenied, BackendError, MessageTooLarge, NotFound, PreconditionFailed, Unavailable

WRONG_SEQUENCE: Final = (10071, 10164)
"""JetStream's codes for a write whose expectation of what was last written is wrong."""
_FULL: Final = (10023, 10047, 10077)
"""Its codes for a stream or server that has no room."""

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


def translate(error: Exception, what: str, resource: str | None) -> BackendError | None:
    """Return our error for one of NATS', or None for what is none.

    Args:
        error: What was raised.
        what: What was attempted, for the message. The error's own text is left out: it may quote a subject or payload.
        resource: The name of what it was attempted on.
    """
    if isinstance(error, nats.js.errors.APIError):
        if error.err_code in WRONG_SEQUENCE:
            return PreconditionFailed(f"{what}: it was written meanwhile.", resource=resource)
        if error.err_code in _FULL:
            return Unavailable(f"{what}: JetStream has no room left.", resource=resource)
    if "authorization violation" in str(error).lower():  # at connecting, a plain Error with the server's words
        return AccessDenied(f"{what}: these credentials are not accepted.", resource=resource)
    for theirs, ours in _TABLE:
        if isinstance(error, theirs):
            code = getattr(error, "err_code", None)
            return ours(f"{what}: {type(error).__name__}{f' {code}' if code else ''}.", resource=resource)
    return None


@contextmanager
def told_as(what: str, resource: str | None = None) -> Iterator[None]:
    """Have NATS' errors leave the block as ours."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        ours = translate(error, what, resource)
        if ours is None:
            raise
        raise ours from error
