"""Dead letters: a stream with one subject for each subscription, the reason in headers.

The id of a dead letter is its sequence in the stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from totoms.errors import BackendError, MessageTooLarge, NotFound
from totoms.plugin import (
    DeadLetter,
    DeadLetterReason,
    DeadLetterStore,
    HeldLetter,
    Received,
    purge_letters,
    replay_letters,
)
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

    async def keep(self, received: Received, reason: DeadLetterReason) -> str:
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
            stored = await self._connection.publish(self._subject, received.body, {**to_headers(attributes), **once})
        except MessageTooLarge:  # already at the server's limit: keep the body, without its attributes
            stored = await self._connection.publish(self._subject, received.body, {**to_headers(why), **once})
        return str(stored["seq"])

    async def count(self) -> int:
        """Return how many there are."""
        try:
            info = await self._connection.call(
                lambda js: js.stream_info(self._stream, subjects_filter=self._subject), "No dead letters", self._stream
            )
        except NotFound:  # nothing was ever dead-lettered
            info = None
        number = (info.state.subjects or {}).get(self._subject, 0) if info is not None else 0
        if not number:
            await self._check_subscription()
        return number

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
        return await replay_letters(self._pages(), letter_ids, self._republish, self._delete)

    async def purge(self, letter_ids: Sequence[str] | None) -> int:
        """Delete them."""
        purged = await purge_letters(self._pages(), letter_ids, self._delete)
        if not purged:
            await self._check_subscription()
        return purged

    async def _republish(self, page: Sequence[HeldLetter]) -> Sequence[BackendError | None]:
        queue = self._subscriptions.names.queue_subject(self._subscription)
        for held in page:
            letter = held.letter
            # If the process ends before the letter is deleted, JetStream drops a second replay within two minutes.
            once = {"Nats-Msg-Id": f"{self._stream}.{letter.letter_id}"}
            await self._connection.publish(queue, letter.body, {**to_headers(letter.attributes), **once})
        return [None] * len(page)

    async def _check_subscription(self) -> None:
        if not await self._subscriptions.exists(self._subscription):
            raise NotFound(f"There is no subscription {self._subscription!r}.", resource=self._subscription)

    async def _pages(self) -> AsyncGenerator[Sequence[HeldLetter], None]:
        """Yield those that there are now, one on each page."""
        try:
            last = (await self._get(lambda js: js.get_msg(self._stream, subject=self._subject))).seq or 0
        except NotFound:
            return
        async for message in self._messages():
            if (message.seq or 0) > last:  # dead-lettered since this began
                return
            yield [HeldLetter(_letter(self._subscription, message), message.seq or 0)]

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

    async def _delete(self, page: Sequence[HeldLetter]) -> None:
        for held in page:
            await self._delete_one(held.handle)

    async def _delete_one(self, sequence: int) -> None:
        with contextlib.suppress(NotFound):  # another process deleted it first
            await self._connection.call(lambda js: js.delete_msg(self._stream, sequence), "Not deleted", self._stream)


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
