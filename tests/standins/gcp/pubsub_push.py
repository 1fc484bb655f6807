"""Pub/Sub, as far as it pushes: what waits in a push subscription is delivered until it is acknowledged or given up.

https://cloud.google.com/pubsub/docs/push
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from standins.gcp.pubsub import Backlog, Entry, PubSubStandIn

Send = Callable[[Any, int], Awaitable[int]]


async def push(server: PubSubStandIn, path: str, send: Send, *, hurry: float = 1.0) -> None:
    """Push all messages that wait in a subscription, and return when none is left.

    Every answer that is not 2xx counts as a delivery, and so does a refused or broken connection. After each the
    subscription's retry policy says when the next one is due, and its dead-letter policy how many there are.

    Args:
        server: Has the subscription. Nothing may be published to it meanwhile.
        path: The subscription.
        send: Sends a message, with the number of the delivery, and returns the status; raises OSError or
            `httpx.TransportError` if there is no answer.
        hurry: How many times as fast the pauses pass.
    """
    backlog = server.subscriptions[path]
    await asyncio.gather(*(_push_one(server, backlog, entry, send, hurry) for entry in list(backlog.entries)))


async def _push_one(server: PubSubStandIn, backlog: Backlog, entry: Entry, send: Send, hurry: float) -> None:
    while entry in backlog.entries:
        await asyncio.sleep(max(0.0, entry.due - time.monotonic()) / hurry)
        entry.deliveries += 1
        try:
            status = await send(entry.message, entry.deliveries)
        except (OSError, httpx.TransportError):
            status = 0
        if 200 <= status < 300:
            backlog.entries.remove(entry)
        else:
            server.failed(backlog, entry)
