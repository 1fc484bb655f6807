"""Private members and message texts of the SDK of Service Bus. Each use has a fallback for an SDK that lacks it.

- The SDK waits for the broker's answer to each message that it settles, one round trip after the other
  (``_await_settlement_outcome``, ``_settled``).
- It can give a message back only as failed, which counts an attempt (``_handler``, ``_delivery_id``,
  ``_delivery_tag``).
- Messages that were requested and arrive when no `receive` is running stay in its socket (``_amqp_transport``).
- A receive of several messages waits 0.2 s after the last one (``_further_pull_receive_timeout``).
- A connection that it is opening when it is cancelled stays open (``_running``, ``_handler._connection``).
- Only the texts of its errors say that the client is closed, and which AMQP condition an error has.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any, Final

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

_AWAITED: Final = "_await_settlement_outcome"
_GAP: Final = "_further_pull_receive_timeout"
_GAP_SECONDS: Final = 0.02
_CONDITION: Final = re.compile(r"Error condition: ([A-Za-z0-9:._-]+)\.(?: |$)")
_SHUT_DOWN: Final = "already been shutdown"


def shorten_gap(receiver: ServiceBusReceiver) -> None:
    """Have a receive of several messages return 0.02 s after the last one. Without it: after 0.2 s."""
    if hasattr(receiver, _GAP):
        setattr(receiver, _GAP, _GAP_SECONDS)


async def connect(receiver: ServiceBusReceiver) -> None:
    """Open the receiver's connection, unless it is open. If cancelled, the connection is broken off.

    Without ``_running`` the SDK is asked each time, which then finds that it is open.
    """
    if getattr(receiver, "_running", False):
        return
    opening = asyncio.ensure_future(receiver.__aenter__())
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        abort(receiver)  # before the SDK forgets the connection
        opening.cancel()
        await asyncio.wait({opening})
        raise


async def complete(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage, *, confirmed: bool) -> None:
    """Settle a message for good. Without the private member every message is confirmed.

    Args:
        receiver: The receiver that it came from.
        message: The message.
        confirmed: Whether to wait for the broker's answer. It then has received those before it on the link, too.
    """
    awaited = getattr(receiver, _AWAITED, None)
    if confirmed or awaited is None:
        await receiver.complete_message(message)
        return
    setattr(receiver, _AWAITED, False)
    try:
        await receiver.complete_message(message)
    finally:
        setattr(receiver, _AWAITED, awaited)


def unsettle(message: ServiceBusReceivedMessage) -> None:
    """Allow a message that was settled without confirmation to be settled again."""
    message._settled = False


async def release(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage) -> None:
    """Give a message back with no attempt counted, by AMQP's outcome ``released`` (AMQP 1.0 part 3, section 3.4.4).

    Without the private members it is abandoned, which counts one.
    """
    link: Any = getattr(receiver, "_handler", None)
    delivery: Any = getattr(message, "_delivery_id", None)
    settle = getattr(link, "settle_messages_async", None)
    if settle is not None and delivery is not None:
        with contextlib.suppress(Exception):  # the link that it came by, or this one, may be gone
            await settle(delivery, getattr(message, "_delivery_tag", None), "released")
            message._settled = True
            return
    await receiver.abandon_message(message)


async def drain(receiver: ServiceBusReceiver) -> None:
    """Withdraw what was requested, and release what still arrives (AMQP 1.0 part 2, section 2.6.7).

    Without the private members such messages come again when their locks end.
    """
    link: Any = getattr(receiver, "_handler", None)
    drain_and_release = getattr(getattr(receiver, "_amqp_transport", None), "drain_and_release_messages_async", None)
    if link is not None and drain_and_release is not None:
        await drain_and_release(link)


def abort(receiver: ServiceBusReceiver) -> None:
    """Break the connection off, so that a pending call fails at once. Without the private members it times out."""
    connection = getattr(getattr(receiver, "_handler", None), "_connection", None)
    writer = getattr(getattr(connection, "_transport", None), "writer", None)
    if writer is not None:
        writer.transport.abort()


def is_shut_down(error: Exception) -> bool:
    """Return whether an error says that the client is closed: a ValueError that only its text distinguishes."""
    return isinstance(error, ValueError) and _SHUT_DOWN in str(error)


def condition_of(error: Exception) -> str:
    """Return the AMQP condition at the end of an error's text; empty if there is none. The rest may quote a message."""
    found = _CONDITION.search(str(error))
    return found[1] if found else ""
