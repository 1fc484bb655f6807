"""One pull: a request to a consumer, and what the server sends until it says that this was all.

A message that arrives when nobody looks any more would wait for the end of its lease. And a request that nobody waits
for any more makes version 2.9 of the server take a message up, find nobody, and begin to count its deliveries anew. So
a pull is short and is never broken off: whoever stops waits for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inbox

from totoms_nats.errors import told_as
from totoms_nats.topology import Source

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one pull, whatever the number of messages. It is the most that a server lets one message have."""
_GRACE: Final = 2.0
"""Seconds after which a server that should have answered is taken for gone."""


class Pull:
    """Asks a consumer for messages, once.

    Args:
        client: The connected client.
        source: The consumer.
        batch: How many messages at most.

    Attributes:
        messages: What came.
        answered: Whether the server said that this was all.
    """

    def __init__(self, client: Client, source: Source, batch: int) -> None:
        self._client = client
        self._source = source
        self._batch = batch
        self._ended = asyncio.Event()
        self.messages: list[Msg] = []
        self.answered = False

    async def run(self, linger: float) -> None:
        """Collect what there is; if there is nothing, wait `linger` seconds for it. Do not cancel it."""
        request: dict[str, object] = {"batch": self._batch, "max_bytes": _MOST_BYTES}
        request |= {"expires": int(linger * 1e9)} if linger else {"no_wait": True}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._source.stream}.{self._source.consumer}"
        with told_as("NATS gave no messages", self._source.consumer):
            reply = self._client.new_inbox()
            inbox = await self._client.subscribe(reply, cb=self._take, pending_bytes_limit=0)
            try:
                await self._client.publish(subject, json.dumps(request).encode(), reply=reply)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(linger + _GRACE):
                        await self._ended.wait()
            finally:
                await self._leave(inbox)

    async def _take(self, message: Msg) -> None:
        # A foreign message may have a header "Status"; but only a message has somewhere to be acknowledged.
        if message.reply.startswith("$JS.ACK."):
            self.messages.append(message)
            if len(self.messages) < self._batch:
                return
        self.answered = True
        self._ended.set()

    async def _leave(self, inbox: Inbox) -> None:
        if self._client.is_closed:
            return
        if self.answered or not self._client.is_connected:
            await inbox.unsubscribe()
        else:
            # The server gave no answer. What it may have sent meanwhile comes in before it confirms that this is over.
            with contextlib.suppress(Exception):  # disconnected: then it has forgotten the inbox as well
                async with asyncio.timeout(_GRACE):
                    await inbox.drain()  # type: ignore[no-untyped-call]
