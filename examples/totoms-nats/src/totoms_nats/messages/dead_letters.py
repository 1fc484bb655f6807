"""Dead letters: a stream with one subject for each subscription, the reason in headers.

The id of a dead letter is its sequence in the stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from totoms.errors import MessageTooLarge, NotFound
from totoms.plugin import DeadLetter, DeadLetterReason, DeadLetterStore, Received
from totoms_nats.clients import Connection
from totoms_nats.messages.encoding import DEAD_LETTER_PREFIX, from_headers, to_headers
from totoms_nats.messages.subscriptions import Subscriptions

_MESSAGE_ID: Final = f"{DEAD_LETTER_PREFIX}message-id"
_REASON: Final = f"{DEAD_LETTER_PREFIX}reason"
_ERROR_CLASS: Final = f"{DEAD_LETTER_PREFIX}error-class"
_DESCRIPTION: Final = f"{DEAD_LETTER_PREFIX}description"
_ATTEMPTS: Final = f"{DEAD_LETTER_PREFIX}attempts"


class NatsDeadLetters(DeadLetterStore):
    """The dead letters of one subscription.

    Args:
        subscription: Its name.
        connection: The connection.
        subscriptions: Knows which subscriptions there are, and what the stream is called.
    """

    def __init__(self, subscription: str, connection: Connection, subscriptions: Subscriptions) -> None:
        self._subscription = subscription
        self._connection = connection
        self._subscriptions = subscriptions
        self._stream = subscriptions.names.dead
        self._subject = subscriptions.names.dead_subject(subscription)

    async def keep(self, received: Received, reason: DeadLetterReason) -> None:
        """Store a message with the reason. Of one delivery, it is stored once within two minutes."""
        why = {
            _MESSAGE_ID: received.message_id,
            _REASON: reason.reason,
            _ERROR_CLASS: reason.error_class,
            _ATTEMPTS: str(reason.attempts),
        }
        attributes = {**received.attributes, **why, _DESCRIPTION: reason.description}
        once = {"Nats-Msg-Id": received.lease.handle.place} if received.lease is not None else {}
        try:
            await self._connection.publish(self._subject, received.body, {**to_headers(attributes), **once})
        except MessageTooLarge:  # already at the server's limit: keep the body, without its attributes
            await self._connection.publish(self._subject, received.body, {**to_headers(why), **once})

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return the oldest."""
        letters: list[DeadLetter] = []
        async for message in self._messages():
            letters.append(_letter(self._subscription, message))
            if len(letters) == limit:
                break
        if not letters:
            await self._check_subscription()
        return letters

    async def show(self, letter_id: str) -> DeadLetter:
        """Return one, by its sequence."""
        missing = NotFound(f"There is no dead letter {letter_id!r}.", resource=letter_id)
        if not letter_id.isdecimal() or not 0 < int(letter_id) < 2**63:
            raise missing
        try:
            message = await self._get(lambda js: js.get_msg(self._stream, seq=int(letter_id)))
        except NotFound:
            raise missing from None
        if message.subject != self._subject:
            raise missing
        return _letter(self._subscription, message)

    async def replay(self, letter_ids: Sequence[str] | None) -> int:
        """Publish them to the subscription's own queue, where their attempts start over."""
        await self._check_subscription()
        replayed, queue = 0, self._subscriptions.names.queue_subject(self._subscription)
        async for message in self._selected(letter_ids):
            letter = _letter(self._subscription, message)
            # If the process ends before the letter is deleted, JetStream drops a second replay within two minutes.
            once = {"Nats-Msg-Id": f"{self._stream}.{letter.letter_id}"}
            await self._connection.publish(queue, letter.body, {**to_headers(letter.attributes), **once})
            await self._delete(message)
            replayed += 1
        return replayed

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete them."""
        purged = 0
        async for message in self._selected(letter_ids):
            await self._delete(message)
            purged += 1
        if not purged:
            await self._check_subscription()
        return purged

    async def _check_subscription(self) -> None:
        if not await self._subscriptions.exists(self._subscription):
            raise NotFound(f"There is no subscription {self._subscription!r}.", resource=self._subscription)

    async def _selected(self, letter_ids: Sequence[str] | None) -> AsyncIterator[RawStreamMsg]:
        try:
            last = (await self._get(lambda js: js.get_msg(self._stream, subject=self._subject))).seq or 0
        except NotFound:
            return
        async for message in self._messages():
            if (message.seq or 0) > last:  # dead-lettered again since this began
                return
            if letter_ids is None or str(message.seq) in letter_ids:
                yield message

    async def _messages(self) -> AsyncIterator[RawStreamMsg]:
        def following(js: JetStreamContext) -> Awaitable[RawStreamMsg]:
            return js.get_msg(self._stream, seq=sequence, subject=self._subject, next=True)

        sequence = 1
        while True:
            try:
                message = await self._get(following)
            except NotFound:
                return
            yield message
            sequence = (message.seq or 0) + 1

    async def _get(self, work: Callable[[JetStreamContext], Awaitable[RawStreamMsg]]) -> RawStreamMsg:
        return await self._connection.call(work, "There is no dead letter", self._stream)

    async def _delete(self, message: RawStreamMsg) -> None:
        with contextlib.suppress(NotFound):  # another process deleted it first
            await self._connection.call(
                lambda js: js.delete_msg(self._stream, message.seq or 0), "Not deleted", self._stream
            )


def _letter(subscription: str, message: RawStreamMsg) -> DeadLetter:
    headers = from_headers(message.headers)
    attempts = headers.get(_ATTEMPTS, "")
    return DeadLetter(
        letter_id=str(message.seq),
        message_id=headers.get(_MESSAGE_ID, ""),
        subscription=subscription,
        body=message.data or b"",
        attributes={name: value for name, value in headers.items() if not name.startswith(DEAD_LETTER_PREFIX)},
        reason=DeadLetterReason(
            reason=headers.get(_REASON, ""),
            error_class=headers.get(_ERROR_CLASS, ""),
            description=headers.get(_DESCRIPTION, ""),
            attempts=int(attempts) if attempts.isdecimal() else 0,
        ),
        dead_since=message.time.timestamp() if message.time is not None else 0.0,
    )
