"""Dead letters: in a topic and a subscription of their own, with the reason in attributes.

Pub/Sub cannot look into a subscription. Listing pulls the messages and gives them back, so while one process lists,
another sees fewer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar, Final

from google.api_core import exceptions as api

from totoms.errors import BackendError
from totoms.plugin import (
    DeadLetter,
    DeadLetterReason,
    DeadLetterStore,
    HeldLetter,
    Received,
    purge_letters,
    replay_letters,
)
from totoms_gcp.messages.clients import MAX_ACK_IDS, Clients
from totoms_gcp.messages.encoding import MAX_ATTRIBUTES, decode_dead_letter, encode, reason_attributes, was_forwarded
from totoms_gcp.messages.naming import DEAD, companion
from totoms_gcp.messages.subscriptions import Subscriptions

_PAUSE: Final = 0.1
_MAX_HELD: Final = 50
"""Letters held while they are replayed or purged, one after the other: their leases last for 10 seconds, and what is
acknowledged later may stay, and be replayed once more."""
_MAX_LISTED_BYTES: Final = 256 * 1024 * 1024


class PubSubDeadLetters(DeadLetterStore):
    """The dead letters of one subscription.

    Args:
        name: The subscription, as it was named.
        clients: Of the bus.
        subscriptions: Finds the dead-letter topic, and makes what replaying needs.
        patience: Seconds without a new letter after which there are no more.
    """

    listing_hides: ClassVar[bool] = True

    def __init__(self, name: str, clients: Clients, subscriptions: Subscriptions, patience: float) -> None:
        self._name = name
        self._clients = clients
        self._subscriptions = subscriptions
        self._patience = patience

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return at most `limit` letters: the oldest of at least the first 1,000 that come."""
        found: list[DeadLetter] = []
        size = 0
        async with aclosing(self._dead_letters(MAX_ACK_IDS)) as letters:
            async for (held,) in letters:
                found.append(held.letter)
                size += len(held.letter.body)
                if len(found) >= max(10 * limit, MAX_ACK_IDS) or size > _MAX_LISTED_BYTES:
                    break
        return sorted(found, key=lambda letter: (letter.dead_since, letter.letter_id))[:limit]

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Publish letters to a topic that only this subscription's service receives; return how many."""
        return await replay_letters(self._dead_letters(_MAX_HELD), letter_ids, self._republish, self._delete)

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete letters for good; return how many."""
        return await purge_letters(self._dead_letters(_MAX_HELD), letter_ids, self._delete)

    async def keep(self, received: Received, reason: DeadLetterReason) -> str:
        """Publish a message with the reason to the dead-letter topic."""
        topic = self._subscriptions.dead_letter_topic(self._path)
        why = reason_attributes(received.message_id, reason)
        attributes = {**dict([*received.attributes.items()][: MAX_ATTRIBUTES - len(why)]), **why}
        try:
            return await self._clients.publish(topic, encode(received.body, attributes, received.ordering_key))
        except BackendError as error:
            if not isinstance(error.__cause__, api.InvalidArgument):
                raise
            # It was as large as Pub/Sub allows, and the reason makes it larger: the body is what counts.
            return await self._clients.publish(topic, encode(received.body, why, received.ordering_key))

    @property
    def _path(self) -> str:
        return self._subscriptions.path(self._name)

    async def _dead_letters(self, most: int) -> AsyncGenerator[Sequence[HeldLetter], None]:
        """Yield each letter once, on a page of its own; pull `most` at a time. At the end give back what is left."""
        dead = companion(self._path, DEAD).subscription
        held: dict[str, str] = {}
        forwarding_reason = ""
        last = time.monotonic()
        try:
            while (left := last + self._patience - time.monotonic()) > 0:
                pulled = await self._clients.pull(dead, most, timeout=left)
                new = [one for one in pulled if one.message.message_id not in held]
                held.update((one.message.message_id, one.ack_id) for one in pulled)
                for one in new:
                    last = time.monotonic()
                    letter = decode_dead_letter(self._name, one.message)
                    if was_forwarded(one.message):
                        forwarding_reason = forwarding_reason or await self._forwarding_reason()
                        letter = replace(letter, reason=replace(letter.reason, reason=forwarding_reason))
                    yield [HeldLetter(letter, one)]
                if not pulled:
                    await asyncio.sleep(_PAUSE)
        finally:
            ids = [*held.values()]
            for start in range(0, len(ids), MAX_ACK_IDS):
                # What was deleted stays deleted: its acknowledgement id is not valid any more.
                await self._clients.modify(dead, ids[start : start + MAX_ACK_IDS], 0)

    async def _forwarding_reason(self) -> str:
        """Return the reason for what Pub/Sub dead-lettered itself: a pushed message was never leased to a handler."""
        try:
            found = await self._subscriptions.find(self._path)
        except BackendError:  # with the right to read the letters, but not the subscription
            found = None
        return "undelivered" if found is not None and found.push_config.push_endpoint else "lease_expired"

    async def _republish(self, page: Sequence[HeldLetter]) -> Sequence[BackendError | None]:
        topic = await self._subscriptions.create_replay(self._path)
        for held in page:
            letter, key = held.letter, held.handle.message.ordering_key
            await self._clients.publish(topic, encode(letter.body, letter.attributes, key, letter.message_id))
        return [None] * len(page)

    async def _delete(self, page: Sequence[HeldLetter]) -> None:
        ack_ids = [held.handle.ack_id for held in page]
        await self._clients.acknowledge(companion(self._path, DEAD).subscription, ack_ids)
