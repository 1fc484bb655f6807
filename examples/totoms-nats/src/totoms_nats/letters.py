"""Dead letters: a stream of their own, one subject for each subscription, the reason in headers.

A letter's id is its sequence in the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from totoms.envelope import DeadLetter, DeadLetterReason, Received
from totoms.errors import MessageTooLarge, NotFound
from totoms_nats.connection import Connection
from totoms_nats.headers import OURS, from_headers, to_headers
from totoms_nats.names import Names

_MESSAGE_ID: Final = f"{OURS}message-id"
_REASON: Final = f"{OURS}reason"
_ERROR_CLASS: Final = f"{OURS}error-class"
_DESCRIPTION: Final = f"{OURS}description"
_ATTEMPTS: Final = f"{OURS}attempts"


class DeadLetters:
    """Keeps, lists, delivers again and deletes dead letters.

    Args:
        connection: To whom.
        names: What the stream and its subjects are called.
    """

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names

    async def keep(self, received: Received, reason: DeadLetterReason) -> None:
        """Keep a message with the reason. Done twice for one delivery, within two minutes, it is kept once."""
        why = {
            _MESSAGE_ID: received.message_id,
            _REASON: reason.reason,
            _ERROR_CLASS: reason.error_class,
            _ATTEMPTS: str(reason.attempts),
        }
        about = {**received.attributes, **why, _DESCRIPTION: reason.description}
        subject = self._names.dead_subject(received.subscription.name)
        once = {"Nats-Msg-Id": received.lease.place}
        try:
            await self._connection.publish(subject, received.body, {**to_headers(about), **once})
        except MessageTooLarge:  # it came at the server's very limit: the body is what counts
            await self._connection.publish(subject, received.body, {**to_headers(why), **once})

    async def listed(self, subscription: str, limit: int) -> list[DeadLetter]:
        """Return the oldest letters of a subscription."""
        letters = []
        async for message in self._messages(subscription):
            letters.append(_letter(subscription, message))
            if len(letters) == limit:
                break
        return letters

    async def replay(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Hand letters to the subscription's own queue, where their attempts start over; return how many."""
        replayed = 0
        async for message in self._selected(subscription, letter_ids):
            letter = _letter(subscription, message)
            # Should we end between the two, a second replay within two minutes delivers it no second time.
            once = {"Nats-Msg-Id": f"{self._names.dead}.{letter.letter_id}"}
            headers = {**to_headers(letter.attributes), **once}
            await self._connection.publish(self._names.queue_subject(subscription), letter.body, headers)
            await self._delete(message)
            replayed += 1
        return replayed

    async def purge(self, subscription: str, letter_ids: Sequence[str] | None) -> int:
        """Delete letters for good; return how many."""
        purged = 0
        async for message in self._selected(subscription, letter_ids):
            await self._delete(message)
            purged += 1
        return purged

    async def _selected(self, subscription: str, letter_ids: Sequence[str] | None) -> AsyncIterator[RawStreamMsg]:
        wanted = None if letter_ids is None else set(letter_ids)
        last = await self._last(subscription)
        async for message in self._messages(subscription):
            if (message.seq or 0) > last:  # given up again since we began
                return
            if wanted is None or str(message.seq) in wanted:
                yield message

    async def _last(self, subscription: str) -> int:
        subject = self._names.dead_subject(subscription)
        try:
            message = await self._get(lambda js: js.get_msg(self._names.dead, subject=subject))
        except NotFound:
            return 0
        return message.seq or 0

    async def _messages(self, subscription: str) -> AsyncIterator[RawStreamMsg]:
        subject, sequence = self._names.dead_subject(subscription), 1
        while True:
            try:
                message = await self._get(partial(_next, self._names.dead, subject, sequence))
            except NotFound:
                return
            yield message
            sequence = (message.seq or 0) + 1

    async def _get(self, work: Callable[[JetStreamContext], Awaitable[RawStreamMsg]]) -> RawStreamMsg:
        return await self._connection.call(work, "There is no dead letter", self._names.dead)

    async def _delete(self, message: RawStreamMsg) -> None:
        try:
            await self._connection.call(
                lambda js: js.delete_msg(self._names.dead, message.seq or 0), "It cannot be deleted", self._names.dead
            )
        except NotFound:  # somebody else was quicker
            await asyncio.sleep(0)


async def _next(stream: str, subject: str, sequence: int, js: JetStreamContext) -> RawStreamMsg:
    return await js.get_msg(stream, seq=sequence, subject=subject, next=True)


def _letter(subscription: str, message: RawStreamMsg) -> DeadLetter:
    headers = from_headers(message.headers)
    attributes = {name: value for name, value in headers.items() if not name.startswith(OURS)}
    attempts = headers.get(_ATTEMPTS, "")
    reason = DeadLetterReason(
        headers.get(_REASON, ""), headers.get(_ERROR_CLASS, ""), headers.get(_DESCRIPTION, ""),
        int(attempts) if attempts.isdecimal() else 0,
    )  # fmt: skip
    since = message.time.timestamp() if message.time is not None else 0.0
    return DeadLetter(
        str(message.seq), headers.get(_MESSAGE_ID, ""), subscription, message.data or b"", attributes, reason, since
    )
