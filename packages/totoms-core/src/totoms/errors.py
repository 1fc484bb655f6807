"""Every error that totoms raises, in one tree.

::

    TotoError
    ├── ConfigurationError            the service cannot start as configured; exit status 2
    │   └── PluginError               a hyperscaler plugin is missing or broken
    │       ├── PluginNotFound
    │       └── PluginLoadError
    ├── ValidationError               the caller's input is wrong: HTTP 400
    ├── Unauthorized                  the caller did not prove who it is: HTTP 401
    ├── Forbidden                     the caller is known and may not: HTTP 403
    ├── Undecidable                   cannot be decided now, ask again: HTTP 503
    ├── NonRetryableError             raised by a handler: this message will never succeed
    ├── UndecodableMessage            authentic bytes that are no message of ours
    └── BackendError                  what a hyperscaler, or the local backend, answered
        ├── NotFound                  a topic, bucket, object or secret that does not exist
        ├── AccessDenied              the credentials do not allow it
        ├── Unavailable               away, throttled or too slow: try again
        ├── Unsupported               a capability this backend does not have
        ├── InvalidKey                an object key or secret name no backend accepts
        ├── PreconditionFailed        create-if-absent or replace-if-unchanged lost the race
        ├── MessageTooLarge           over the broker's limit, refused before any I/O
        ├── LeaseLost                 the lease expired: another consumer owns the message
        ├── CorruptData               stored bytes are damaged; names the file or object
        └── Closed                    used after close()
"""

from __future__ import annotations


class TotoError(Exception):
    """Base of all totoms errors.

    Args:
        message: What happened, for a person. Never contains a secret, a token or a payload.
        resource: The name of the topic, bucket, object, secret or file concerned, if there is one.
    """

    status: int = 500
    """The HTTP status with which the error is answered when a delegate lets it escape."""

    def __init__(self, message: str = "", *, resource: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource


class ConfigurationError(TotoError):
    """The service cannot start as it is configured. The process ends with exit status 2."""


class PluginError(ConfigurationError):
    """A hyperscaler plugin is missing or broken."""


class PluginNotFound(PluginError):
    """No installed distribution registers the hyperscaler that was asked for."""


class PluginLoadError(PluginError):
    """A plugin was found but cannot be used. The message names its distribution."""


class ValidationError(TotoError):
    """The caller's input is wrong. Raised in a delegate it is answered with HTTP 400."""

    status = 400


class Unauthorized(TotoError):
    """The caller did not prove who it is: HTTP 401 with ``WWW-Authenticate: Bearer`` (RFC 6750)."""

    status = 401


class Forbidden(TotoError):
    """The caller is known and may not do this: HTTP 403."""

    status = 403


class Undecidable(TotoError):
    """The question cannot be answered now, so the caller shall ask again: HTTP 503.

    Args:
        retry_after: Seconds, sent as the ``Retry-After`` header (RFC 9110 section 10.2.3).
    """

    status = 503

    def __init__(self, message: str = "", *, resource: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, resource=resource)
        self.retry_after = retry_after


class NonRetryableError(TotoError):
    """Raise it (or a subclass) in a handler for a message that will never succeed.

    The message goes to the dead-letter store at once, with the reason, instead of being retried.
    """


class UndecodableMessage(TotoError):
    """The bytes came from the broker, but they are not a message in our wire form."""


class BackendError(TotoError):
    """What a backend answered, mapped to one vocabulary. The original is ``__cause__``."""


class NotFound(BackendError):
    """The topic, subscription, bucket, object or secret does not exist."""


class AccessDenied(BackendError):
    """The credentials are missing, expired, or do not allow the operation."""


class Unavailable(BackendError):
    """The backend is away, throttles us, or did not answer within the deadline. Try again."""

    status = 503


class Unsupported(BackendError):
    """This backend does not have the capability. The message names both."""


class InvalidKey(BackendError, ValueError):
    """The object key or secret name is refused, on every backend alike, before any I/O.

    A key often comes from the caller, so a delegate that lets it escape answers 400.
    """

    status = 400


class PreconditionFailed(BackendError):
    """The object exists already (create-if-absent) or has changed (replace-if-unchanged)."""


class MessageTooLarge(BackendError):
    """The encoded message is over the broker's limit. Refused before any I/O."""


class LeaseLost(BackendError):
    """The lease on a message expired. Another consumer owns it now; a late ack is refused."""


class CorruptData(BackendError):
    """Stored bytes are damaged. ``resource`` names the file or object."""


class Closed(BackendError):
    """The object was used after ``close()``."""
