"""One pull: a request to a consumer, and what the server sends until it says that this was all.

A message that arrives when nothing listens any more waits until its lease ends. And for a request whose inbox is gone,
nats-server 2.9 takes up a message, fails to deliver it, and starts counting its deliveries anew. So a pull is short and
always runs to its end; a receiver that stops waits for it. That is why nats-py's own `fetch` is not used.

The request is documented: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inbox

from totoms_nats.errors import mapped_errors

_MAX_BYTES: Final = 64 * 1024 * 1024
"""Of one pull, whatever the number of messages: the largest message that a server can be configured to take."""
_GRACE: Final = 2.0
"""Seconds after which a server that should have answered counts as gone."""


@dataclass(frozen=True, slots=True)
class Source:
    """A consumer to pull from.

    Attributes:
        stream: Its stream.
        consumer: Its name.
        lease_seconds: How long the server waits for an acknowledgement.
    """

    stream: str
    consumer: str
    lease_seconds: float


class Pull:
    """Asks a consumer for messages, once.

    Args:
        client: The connected client.
        source: The consumer.
        batch: The most messages.

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

    async def run(self, wait: float) -> None:
        """Collect what there is; if there is nothing, wait up to `wait` seconds for it. Do not cancel this."""
        request: dict[str, object] = {"batch": self._batch, "max_bytes": _MAX_BYTES}
        request |= {"expires": int(wait * 1e9)} if wait else {"no_wait": True}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._source.stream}.{self._source.consumer}"
        with mapped_errors("NATS gave no messages", self._source.consumer):
            reply = self._client.new_inbox()
            inbox = await self._client.subscribe(reply, cb=self._take, pending_bytes_limit=0)
            try:
                await self._client.publish(subject, json.dumps(request).encode(), reply=reply)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait + _GRACE):
                        await self._ended.wait()
            finally:
                await self._leave(inbox)

    async def _take(self, message: Msg) -> None:
        # Any message may have a header "Status", but only one from a stream has an address for its acknowledgement.
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
            # Messages that are on their way arrive before the server confirms the end of the subscription.
            with contextlib.suppress(Exception):  # disconnected: the server has dropped the inbox as well
                async with asyncio.timeout(_GRACE):
                    await inbox.drain()  # type: ignore[no-untyped-call]
