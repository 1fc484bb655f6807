"""Maps the errors of the SDK of Service Bus: AMQP's here; those over HTTP in `totoms_azure.errors`."""

from __future__ import annotations

from typing import Final

from azure.servicebus import exceptions as amqp

from totoms.errors import AccessDenied, BackendError, Closed, LeaseLost, MessageTooLarge, NotFound, Unavailable
from totoms_azure import errors, private_api

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
    (amqp.ServiceBusError, BackendError),
)
"""See https://learn.microsoft.com/azure/service-bus-messaging/service-bus-messaging-exceptions-latest."""


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the BackendError for an error of the SDK; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the topic", "the subscription".
        resource: Its name.
    """
    mapped = next((ours for theirs, ours in _TABLE if isinstance(error, theirs)), None)
    if private_api.is_shut_down(error):
        mapped = Closed
    if mapped is None:
        return errors.translate(error, what, resource)
    condition = private_api.condition_of(error)
    name = f"{type(error).__name__} ({condition})" if condition else type(error).__name__
    return mapped(f"Azure failed for {what} {resource!r}: {name}.", resource=resource)


def is_no_session(error: BackendError) -> bool:
    """Return whether an error means that no session has messages: the SDK says so by a time-out only."""
    return isinstance(error.__cause__, amqp.OperationTimeoutError)
