"""Dead letters of a subscription of the local bus."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.local.bus import BusOfTests
from totoms import MessageDestination, TotoEnvironment, TotoMessage
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.subscription import Subscription

NAME = "blog-posts"
BLOG = Subscription(NAME, "posts-topic", "posts")
REASON = DeadLetterReason("attempts_exhausted", "ValueError", "no such\x1b[2Jauthor", 5)


class Letters:
    """A subscription of the local bus, and what becomes of its messages."""

    def __init__(self) -> None:
        self.bus = BusOfTests(TotoEnvironment("local"), {"posts": BLOG.topic})

    async def add(self, *messages: TotoMessage, **reason: Any) -> list[str]:
        """Publish these and dead-letter them; return the ids of the letters."""
        for message in messages:
            await self.bus.publish_message(MessageDestination(topic="posts"), message)
            (received,) = await self.bus._receive(BLOG, 1, 20)
            await self.bus._dead_letter(received, replace(REASON, **reason))
        return [letter.letter_id for letter in await self.listed()]

    async def listed(self) -> list[Any]:
        return await self.bus.list_dead_letters(NAME, 10_000)


def post(title: str = "hello") -> TotoMessage:
    return TotoMessage(type="postCreated", id="1", cid="c-1", data={"title": title})
