"""From the errors of the SDK of Service Bus to ours: one table for AMQP; what it does over HTTP is in `errors`."""

from __future__ import annotations

from typing import Final

from azure.servicebus import exceptions as amqp

from totoms.errors import AccessDenied, BackendError, Closed, LeaseLost, MessageTooLarge, NotFound, Unavailable
from totoms_azure import errors

_TABLE: Final[tuple[tuple[type[Exception], type[BackendError]], ...]] = (
    (amqp.MessagingEntityNotFoundError, NotFound),
    (amqp.MessageNotFoundError, LeaseLost),
    (amqp.MessageLockLostError, LeaseLost),
    (amqp.SessionLockLostError, LeaseLost),
    (amqp.MessageAlreadySettled, LeaseLost),
    (amqp.MessageSizeExceededError, MessageTooLarge),
    (amqp.ServiceBusAuthenticationError, AccessDenied),
    (amqp.ServiceBusAuthorizationError, AccessDenied),
    (amqp.MessagingEntityDisabledError, Unavailable),
    (amqp.ServiceBusQuotaExceededError, Unavailable),
    (amqp.ServiceBusServerBusyError, Unavailable),
    (amqp.ServiceBusCommunicationError, Unavailable),
    (amqp.ServiceBusConnectionError, Unavailable),
    (amqp.OperationTimeoutError, Unavailable),
)
"""See https://learn.microsoft.com/azure/service-bus-messaging/service-bus-messaging-exceptions-latest."""

_SHUT_DOWN: Final = "already been shutdown"


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the error of ours for one of the SDK's; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the topic", "the subscription".
        resource: Its name.
    """
    kind = next((ours for theirs, ours in _TABLE if isinstance(error, theirs)), None)
    if isinstance(error, ValueError) and _SHUT_DOWN in str(error):
        kind = Closed  # that is all the SDK says of it
    if kind is None:
        return errors.translate(error, what, resource)
    return kind(f"Azure failed for {what} {resource!r}: {type(error).__name__}.", resource=resource)
