"""Dead letters: a topic and a subscription beside the one that gave them up, and the reason in attributes.

A letter's id is that of the message which holds it. Pub/Sub cannot look into a subscription: to list means to pull
and to give back, so while one process lists another sees less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from google.api_core import exceptions as api
from google.pubsub_v1 import types

from totoms.envelope import DeadLetter, DeadLetterReason, Received
from totoms.errors import BackendError
from totoms.messages import ID_ATTRIBUTE
from totoms_gcp.pubsub_calls import MOST_IDS, Calls
from totoms_gcp.pubsub_clients import RETRY, RPC_SECONDS, Clients
from totoms_gcp.pubsub_names import DEAD, beside, subscription_path
from totoms_gcp.pubsub_topology import Topology

_OURS: Final = "totoms-dead-"
_THEIRS: Final = "CloudPubSubDeadLetterSource"
"""What Pub/Sub adds when it forwards a message itself (https://cloud.google.com/pubsub/docs/handling-failures)."""
_MOST_ATTRIBUTES: Final = 100
_MOST_VALUE_BYTES: Final = 1024
_PAUSE: Final = 0.1
_AT_ONCE: Final = 50
"""Letters held while they are replayed or purged, one after the other: their leases last for 10 seconds, and what is
acknowledged later may stay, and be replayed once more."""
_MOST_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Held:
    letter: DeadLetter
    ordering_key: str
    ack_id: str


class DeadLetters:
    """Keeps, lists, delivers again and deletes dead letters.

    Args:
        clients: Of the bus.
        calls: To Pub/Sub.
        topology: Makes what replaying needs.
        project: Of subscriptions that are named without one.
        patience: Seconds without a new letter after which there are no more.
    """

    def __init__(self, clients: Clients, calls: Calls, topology: Topology, project: str, patience: float) -> None:
        self._clients = clients
        self._calls = calls
        self._topology = topology
        self._project = project
        self._patience = patience

    async def keep(self, received: Received, reason: DeadLetterReason, topic: str | None) -> None:
        """Keep a message with the reason in `topic`, by default the one beside its subscription."""
        topic = topic or beside(subscription_path(self._project, received.subscription.name), DEAD)[0]
        why = {
            f"{_OURS}message-id": received.message_id,
            f"{_OURS}reason": reason.reason,
            f"{_OURS}error-class": reason.error_class,
            f"{_OURS}description": reason.description,
            f"{_OURS}attempts": str(reason.attempts),
        }
        why = {name: _cut(value) for name, value in why.items()}
        room = _MOST_ATTRIBUTES - len(why)
        about = {**dict(list(received.attributes.items())[:room]), **why}
        try:
            await self._publish(topic, received.body, about, received.ordering_key)
        except BackendError as error:
            if not isinstance(error.__cause__, api.InvalidArgument):
                raise
            # It came at Pub/Sub's very limit: the body is what counts.
            await self._publish(topic, received.body, why, received.ordering_key)

    async def listed(self, subscription: str, limit: int) -> list[DeadLetter]:
        """Return the oldest letters of a subscription."""
        found: list[DeadLetter] = []
        size = 0
        async with aclosing(self._letters(subscription, MOST_IDS)) as letters:
            async for held in letters:
                found.append(held.letter)
                size += len(held.letter.body)
                if len(found) >= max(10 * limit, MOST_IDS) or size > _MOST_BYTES:
                    break
        return sorted(found, key=lambda letter: (letter.dead_since, letter.letter_id))[:limit]

    async def replay(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Publish letters to a topic that only this subscription's service listens to; return how many."""
        path = subscription_path(self._project, subscription)
        topic, replayed = "", 0
        async with aclosing(self._selected(subscription, letter_ids)) as selected:
            async for held in selected:
                topic = topic or await self._topology.make_replay(path)
                letter = held.letter
                attributes = {**letter.attributes, ID_ATTRIBUTE: letter.message_id}
                await self._publish(topic, letter.body, attributes, held.ordering_key)
                await self._delete(path, held)
                replayed += 1
        return replayed

    async def purge(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Delete letters for good; return how many."""
        path, purged = subscription_path(self._project, subscription), 0
        async with aclosing(self._selected(subscription, letter_ids)) as selected:
            async for held in selected:
                await self._delete(path, held)
                purged += 1
        return purged

    async def _selected(self, subscription: str, letter_ids: Sequence[str] | None) -> AsyncGenerator[_Held, None]:
        wanted = None if letter_ids is None else set(letter_ids)
        async with aclosing(self._letters(subscription, _AT_ONCE)) as letters:
            async for held in letters:
                if wanted is None:
                    yield held
                elif held.letter.letter_id in wanted:
                    wanted.discard(held.letter.letter_id)
                    yield held
                    if not wanted:
                        return

    async def _letters(self, subscription: str, most: int) -> AsyncGenerator[_Held, None]:
        """Give each letter once, pulled `most` at a time; at the end give back those that were not deleted."""
        dead = beside(subscription_path(self._project, subscription), DEAD)[1]
        held: dict[str, str] = {}
        last = time.monotonic()
        try:
            while time.monotonic() - last < self._patience:
                messages = await self._calls.pull(dead, most, timeout=RPC_SECONDS, at_once=True)
                new = [message for message in messages if message.message.message_id not in held]
                held.update((message.message.message_id, message.ack_id) for message in messages)
                for message in new:
                    last = time.monotonic()
                    letter = _letter(subscription, message.message)
                    yield _Held(letter, message.message.ordering_key, message.ack_id)
                if not messages:
                    await asyncio.sleep(_PAUSE)
        finally:
            ids = list(held.values())
            for start in range(0, len(ids), MOST_IDS):
                # What was deleted stays deleted: its id is not known any more.
                await self._calls.modify(dead, ids[start : start + MOST_IDS], 0)

    async def _delete(self, path: str, held: _Held) -> None:
        await self._calls.acknowledge(beside(path, DEAD)[1], [held.ack_id])

    async def _publish(self, topic: str, body: bytes, attributes: Mapping[str, str], key: str | None) -> None:
        message = types.PubsubMessage(data=body, attributes=dict(attributes), ordering_key=key or "")
        await self._clients.administer_topics(
            lambda client: client.publish(topic=topic, messages=[message], retry=RETRY, timeout=RPC_SECONDS),
            "the topic", topic,
        )  # fmt: skip


def _letter(subscription: str, message: Any) -> DeadLetter:
    given: dict[str, str] = dict(message.attributes)
    attributes = {name: value for name, value in given.items() if not name.startswith((_OURS, _THEIRS))}
    forwarded = given.get(f"{_THEIRS}DeliveryCount", "")
    attempts = given.get(f"{_OURS}attempts", forwarded)
    reason = DeadLetterReason(
        given.get(f"{_OURS}reason", "lease_expired" if forwarded else ""), given.get(f"{_OURS}error-class", ""),
        given.get(f"{_OURS}description", ""), int(attempts) if attempts.isdecimal() else 0,
    )  # fmt: skip
    message_id = given.get(f"{_OURS}message-id") or given.get(ID_ATTRIBUTE) or message.message_id
    since = message.publish_time.seconds + message.publish_time.nanos / 1e9
    return DeadLetter(message.message_id, message_id, subscription, message.data, attributes, reason, since)


def _cut(value: str) -> str:
    return value.encode()[:_MOST_VALUE_BYTES].decode(errors="ignore")
