"""Undecodable messages and dead letters: behaviours 20 and 24."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from totoms.context import new_cid
from totoms.errors import NonRetryableError, NotFound, Unsupported
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.driver import DEAD_LETTERS
from totoms.messages.message import TYPE_ATTRIBUTE, ProcessingResponse, TotoMessage, encode_message
from totoms.messages.subscription import Subscription
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.listener import MESSAGE_TYPE, Listener
from totoms.testing.messages.topic import Topic, message

_TYPE: Final = MESSAGE_TYPE.encode()
_POISON: Final[Mapping[str, bytes]] = {
    "no JSON": b"<?xml version='1.0'?><message/>",
    "cut": encode_message(message("cut"))[:-1],
    "not UTF-8": b'{"type":"' + _TYPE + b'","msg":"\xff\xfe\xc3\x28"}',
    "nothing": b"",
    "NUL": b'{"type":"' + _TYPE + b'","msg":"\x00"}',
    "a list": b'[{"type":"' + _TYPE + b'"}]',
    "a text": b'"' + _TYPE + b'"',
    "a number": b"7",
    "null": b"null",
    "NaN": b'{"type":"' + _TYPE + b'","data":{"price":NaN}}',
    "5,000 digits": b'{"type":"' + _TYPE + b'","data":' + b"7" * 5000 + b"}",
    "depth": b'{"type":"' + _TYPE + b'","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "lone surrogate": b'{"type":"' + _TYPE + b'","msg":"\\ud800"}',
}
_MAY_NOT_TRAVEL: Final = {"not UTF-8", "nothing", "NUL"}


def _refuse(_handled: TotoMessage) -> ProcessingResponse:
    raise NonRetryableError("as the test says")


class DeadLetters(Contract):
    """Behaviours 20 and 24."""

    @pytest.mark.parametrize("poison", _POISON)
    @pulled
    async def test_20_undecodable_message_is_dead_lettered(self, topic: Topic, poison: str) -> None:
        """An undecodable message is dead-lettered at once without running a handler; the next message is handled."""
        listener, body = await topic.listen(), _POISON[poison]
        try:
            await topic.harness.publish_raw(topic.identifier, body, {TYPE_ATTRIBUTE: MESSAGE_TYPE})
        except Unsupported:
            if poison in _MAY_NOT_TRAVEL:
                return
            raise
        await listener.until_settled(1, "dead_letter")
        await topic.publish("next")
        await listener.until_settled(1)
        await topic.barrier()
        assert listener.ids == ["next"]
        (dead,) = listener.receiver.which("dead_letter")
        assert dead.received.body == body
        assert dead.reason is not None
        assert (dead.reason.reason, dead.reason.attempts) == ("undecodable", 1)
        await topic.check_dead_letters(listener.subscription, {dead.received.message_id: dead.reason})

    @pulled
    async def test_20_message_without_attributes_is_handled(self, topic: Topic) -> None:
        """A message in the wire form is handled without our attributes too."""
        listener, published = await topic.listen(), message("plain", data={"é": [1]})
        await topic.harness.publish_raw(topic.identifier, encode_message(published), {})
        await listener.until_settled(1)
        assert listener.begun == [published]
        assert all(handled.delivery and handled.delivery.message_id for handled in listener.begun)

    @pulled
    async def test_24_dead_letters_are_listed_and_inspected(self, topic: Topic) -> None:
        """A dead letter holds the message as published and the reason; the list has those of one subscription only."""
        if not await _lists_dead_letters(topic):
            return
        listener, ids = await _dead_letter(topic, "one", "two", "three")
        letters = await topic.dead_letters(listener.subscription)
        assert {letter.message_id for letter in letters} == set(ids)
        received = {one.message_id: one for one in listener.receiver.received}
        for letter in letters:
            one = received[letter.message_id]
            assert (letter.body, letter.subscription) == (one.body, listener.subscription.name)
            assert letter.attributes == one.attributes
            assert letter.reason == DeadLetterReason("non_retryable", "NonRetryableError", "as the test says", 1)
            assert letter.dead_since > 0
        assert sorted(letters, key=lambda letter: letter.dead_since) == letters, "the oldest comes first"
        assert len({letter.letter_id for letter in letters}) == 3
        assert await topic.dead_letters(listener.subscription) == letters, "listing them changed them"
        bus = await topic.bus()
        assert await bus.list_dead_letters(listener.subscription.name, 2) == letters[:2]

    @pulled
    async def test_24_dead_letters_are_replayed(self, topic: Topic) -> None:
        """A replayed dead letter has the same id and cid, counts attempts from 1, and goes to its subscription only."""
        if not await _lists_dead_letters(topic):
            return
        listener, ids = await _dead_letter(topic, "one", "two", "three")
        other = await topic.listen()
        bus, name = await topic.bus(), listener.subscription.name
        await listener.stop(topic.harness.patience)
        one, two, three = await topic.dead_letters(listener.subscription)
        assert await bus.replay_dead_letters(name, [two.letter_id, "no-such-letter"]) == 1
        again = await topic.listen(subscription=listener.subscription)
        await again.until_settled(1)
        assert await topic.dead_letters(listener.subscription) == [one, three]
        assert await bus.replay_dead_letters(name) == 2
        await again.until_settled(3)
        await topic.barrier()
        assert await topic.dead_letters(listener.subscription) == []
        assert await bus.replay_dead_letters(name) == 0
        before = {handled.id: handled for handled in listener.begun}
        assert sorted(again.ids) == ["one", "three", "two"]
        for handled in again.begun:
            assert handled == before[handled.id]
            assert handled.delivery is not None
            assert handled.delivery.message_id == ids[("one", "two", "three").index(handled.id)]
        assert again.attempts == [1, 1, 1]
        assert other.ids == []

    @pulled
    async def test_24_dead_letters_are_purged(self, topic: Topic) -> None:
        """Purged dead letters are deleted; the others are kept."""
        if not await _lists_dead_letters(topic):
            return
        listener, _ = await _dead_letter(topic, "one", "two", "three")
        bus, name = await topic.bus(), listener.subscription.name
        one, two, three = await topic.dead_letters(listener.subscription)
        assert await bus.purge_dead_letters(name, [two.letter_id, "no-such-letter"]) == 1
        assert await topic.dead_letters(listener.subscription) == [one, three]
        assert await bus.purge_dead_letters(name) == 2
        assert await topic.dead_letters(listener.subscription) == []
        assert await bus.purge_dead_letters(name) == 0
        await topic.barrier()
        assert len(listener.begun) == 3, "a purged message was delivered again"

    @pulled
    async def test_24_unknown_subscription_has_no_dead_letters(self, topic: Topic) -> None:
        """For an unknown subscription every operation on dead letters raises `NotFound`."""
        if not await _lists_dead_letters(topic):
            return
        bus, name = await topic.bus(), f"none-{new_cid()[:16]}"
        for operation in (bus.list_dead_letters, bus.replay_dead_letters, bus.purge_dead_letters):
            with pytest.raises(NotFound, match=name):
                await operation(name)
        known: Subscription = (await topic.listen()).subscription
        assert await topic.dead_letters(known) == []


async def _lists_dead_letters(topic: Topic) -> bool:
    """Return whether the backend lists dead letters; if not, assert that each operation is refused."""
    if DEAD_LETTERS in topic.capabilities:
        return True
    bus = await topic.bus()
    for operation in (bus.list_dead_letters, bus.replay_dead_letters, bus.purge_dead_letters):
        with pytest.raises(Unsupported):
            await operation("any")
    return False


async def _dead_letter(topic: Topic, *names: str) -> tuple[Listener, list[str]]:
    listener = await topic.listen(_refuse, max_concurrency=1)
    ids = []
    for number, name in enumerate(names, 1):  # one after the other, so that there is an oldest
        ids += await topic.publish(name)
        await listener.until_settled(number, "dead_letter")
    return listener, ids
