"""What the SDK of Service Bus offers to nobody, and is needed. Each does without where the SDK has changed.

The SDK awaits the broker's word for each message that is settled, one round trip after the other; it can put a message
back only as failed; and messages that were asked for and came when nobody listened lie in its socket; and a
connection that it was opening when it was cancelled stays open. All of that stands in its private parts, which are
touched here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

_AWAITED: Final = "_await_settlement_outcome"
_GAP: Final = "_further_pull_receive_timeout"
_GAP_SECONDS: Final = 0.02


def prepare(receiver: ServiceBusReceiver) -> None:
    """Have a receive of several return soon after the last that comes; by itself it waits for 0.2 s more."""
    if hasattr(receiver, _GAP):
        setattr(receiver, _GAP, _GAP_SECONDS)


async def connect(receiver: ServiceBusReceiver) -> None:
    """Open its connection where there is none; one that is being opened when this is cancelled is broken off."""
    if getattr(receiver, "_running", False):
        return
    opening = asyncio.ensure_future(receiver.__aenter__())
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        hang_up(receiver)  # before the SDK forgets it
        opening.cancel()
        await asyncio.wait({opening})
        raise


async def complete(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage, *, confirmed: bool) -> None:
    """Settle a message for good.

    Args:
        receiver: It came from.
        message: The message.
        confirmed: Whether to wait for the broker's word. Those before it on the same link have been received then.
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
    """Have a message that was settled, and not confirmed, be settled once more."""
    message._settled = False


async def release(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage) -> None:
    """Put a message back with no attempt counted: AMQP's outcome ``released`` (AMQP 1.0 part 3, section 3.4.4)."""
    link: Any = getattr(receiver, "_handler", None)
    delivery: Any = getattr(message, "_delivery_id", None)
    settle = getattr(link, "settle_messages_async", None)
    if settle is not None and delivery is not None:
        with contextlib.suppress(Exception):  # it came by a link that is no more, or this one is not
            await settle(delivery, getattr(message, "_delivery_tag", None), "released")
            message._settled = True
            return
    await receiver.abandon_message(message)  # which counts one


async def drain(receiver: ServiceBusReceiver) -> None:
    """Take back what was asked for, and release what has come all the same (AMQP 1.0 part 2, section 2.6.7)."""
    link: Any = getattr(receiver, "_handler", None)
    drain_and_release = getattr(getattr(receiver, "_amqp_transport", None), "drain_and_release_messages_async", None)
    if link is not None and drain_and_release is not None:
        await drain_and_release(link)


def hang_up(receiver: ServiceBusReceiver) -> None:
    """Break its connection off, though somebody is at it: what waits there fails at once."""
    connection = getattr(getattr(receiver, "_handler", None), "_connection", None)
    writer = getattr(getattr(connection, "_transport", None), "writer", None)
    if writer is not None:
        writer.transport.abort()
