"""Every error that totoms raises, in one tree.

::

    TotoError
    ├── ConfigurationError            the service cannot start as configured; exit status 2
    │   └── PluginError               a hyperscaler plugin is missing or broken
    │       ├── PluginNotFound
    │       └── PluginLoadError
    ├── ValidationError               the caller's input is wrong: HTTP 400
    ├── InvalidArgument               the service passed an invalid argument: HTTP 500
    ├── NotSerializable               the service has a value that cannot be written as JSON: HTTP 500
    ├── Unauthorized                  the caller is not authenticated: HTTP 401
    ├── Forbidden                     the caller is not allowed to do this: HTTP 403
    │   └── InsufficientScope         the caller's token lacks what the endpoint requires
    ├── Undecidable                   cannot be decided now, try again: HTTP 503
    ├── NonRetryableError             raised by a handler: this message will never succeed
    ├── UndecodableMessage            authentic bytes that are not a message of totoms
    └── BackendError                  an error of a hyperscaler or the local backend
        ├── NotFound                  a topic, bucket, object or secret that does not exist
        ├── AccessDenied              the credentials do not allow it
        ├── Unavailable               down, throttled or too slow: try again
        ├── Unsupported               a capability this backend does not have
        ├── InvalidKey                an object key or secret name no backend accepts
        ├── PreconditionFailed        create-if-absent or replace-if-unchanged does not hold
        ├── MessageTooLarge           over the broker's limit, rejected before any I/O
        ├── LeaseLost                 the lease expired: another consumer may have the message
        ├── CorruptData               stored bytes are damaged; names the file or object
        └── Closed                    used after close()
"""

from __future__ import annotations


class TotoError(Exception):
    """Base of all totoms errors.

    Args:
        message: What happened, for people. Never contains a secret, a token or a payload.
        resource: The name of the topic, bucket, object, secret or file, if there is one.
    """

    status: int = 500
    """The HTTP status of the answer if a delegate raises the error."""

    def __init__(self, message: str = "", *, resource: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource


class ConfigurationError(TotoError):
    """The service cannot start as configured. The process ends with exit status 2."""


class PluginError(ConfigurationError):
    """A hyperscaler plugin is missing or broken."""


class PluginNotFound(PluginError):
    """No installed distribution registers the hyperscaler."""


class PluginLoadError(PluginError):
    """A plugin was found but cannot be used. The message names its distribution."""


class ValidationError(TotoError):
    """The caller's input is wrong: HTTP 400 if a delegate raises it."""

    status = 400


class InvalidArgument(TotoError, ValueError):
    """The service passed an invalid argument to totoms: HTTP 500, because it is not the caller's mistake."""


class NotSerializable(TotoError, TypeError):
    """A message or the result of a delegate cannot be written as JSON: HTTP 500, because it is a bug of the service.

    The error's message names the class of the value, never the value.
    """


class Unauthorized(TotoError):
    """The caller is not authenticated: HTTP 401 with ``WWW-Authenticate: Bearer`` (RFC 6750)."""

    status = 401


class Forbidden(TotoError):
    """The caller is authenticated but not allowed to do this: HTTP 403."""

    status = 403


class InsufficientScope(Forbidden):
    """The caller's token lacks a scope or role that the endpoint requires: HTTP 403 (RFC 6750 section 3.1)."""


class Undecidable(TotoError):
    """The request cannot be decided now, and the caller should try again: HTTP 503.

    Args:
        retry_after: Seconds, sent as the ``Retry-After`` header (RFC 9110 section 10.2.3).
    """

    status = 503

    def __init__(self, message: str = "", *, resource: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, resource=resource)
        self.retry_after = retry_after


class NonRetryableError(TotoError):
    """Raise it (or a subclass) in a handler to dead-letter a message at once, because it will never succeed."""


class UndecodableMessage(TotoError):
    """The bytes came from the broker, but are not a message in the wire form."""


class BackendError(TotoError):
    """An error of a backend. The SDK's error is its ``__cause__``."""


class NotFound(BackendError):
    """The topic, subscription, bucket, object or secret does not exist."""


class AccessDenied(BackendError):
    """The credentials are missing, expired, or do not allow the operation."""


class Unavailable(BackendError):
    """The backend is down, throttles requests, or did not answer within the deadline. Try again."""

    status = 503


class Unsupported(BackendError):
    """This backend does not have the capability. The message names both."""


class InvalidKey(BackendError, ValueError):
    """The object key or secret name is invalid, with the same rules on every backend. Checked before any I/O.

    A key often comes from the caller, so the HTTP status is 400.
    """

    status = 400


class PreconditionFailed(BackendError):
    """The object exists already (create-if-absent) or has changed (replace-if-unchanged)."""


class MessageTooLarge(BackendError):
    """The encoded message is over the broker's limit. Checked before any I/O."""


class LeaseLost(BackendError):
    """The lease on a message expired, and another consumer may have it; a late ack is rejected."""


class CorruptData(BackendError):
    """Stored bytes are damaged. ``resource`` names the file or object."""


class Closed(BackendError):
    """The object was used after ``close()``."""
