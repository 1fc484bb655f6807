"""Events: their versions, and data that is not valid: behaviour 64."""

from __future__ import annotations

from typing import Any, Final

import pytest

from totoms.messages.driver import DEAD_LETTERS
from totoms.messages.events import VERSION_ATTRIBUTE, TotoEvent
from totoms.messages.message import encode_message
from totoms.messages.subscription import RetryPolicy
from totoms.messages.upcast import upcast
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.listener import MESSAGE_TYPE
from totoms.testing.messages.topic import POSTS, Topic, message

_TWICE: Final = RetryPolicy(max_attempts=2, min_backoff=0.0, max_backoff=0.0)
_CANARY: Final = "canary-64"


class Tested(TotoEvent, type=MESSAGE_TYPE, version=2):
    """The event that the handler knows."""

    name: str
    count: int


class Newer(TotoEvent, type=MESSAGE_TYPE, version=3):
    """The same event, as a later publisher knows it."""

    name: str
    count: int


@upcast(Tested, from_version=1)
def _with_count(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "count": 1}


class Typed(Contract):
    """Behaviour 64."""

    @pulled
    async def test_64_event_arrives_as_it_was_published(self, topic: Topic) -> None:
        """An event arrives as an equal event, and its version as an attribute."""
        listener, event = await topic.listen(event=Tested), Tested(name="Grüße", count=2)
        await (await topic.bus()).publish_message(POSTS, event)
        await listener.until_settled(1)
        assert [handled.data for handled in listener.begun] == [event]
        assert listener.receiver.received[0].attributes[VERSION_ATTRIBUTE] == "2"

    @pytest.mark.parametrize("attributes", [{}, {VERSION_ATTRIBUTE: "1"}], ids=["no version", "version 1"])
    @pulled
    async def test_64_older_version_is_upcast(self, topic: Topic, attributes: dict[str, str]) -> None:
        """Data of version 1, and data without a version, reach the handler as the event of today."""
        listener = await topic.listen(event=Tested)
        body = encode_message(message("old", data={"name": "old"}))
        await topic.harness.publish_raw(topic.identifier, body, attributes)
        await listener.until_settled(1)
        assert [handled.data for handled in listener.begun] == [Tested(name="old", count=1)]

    @pulled
    async def test_64_invalid_data_is_dead_lettered_at_once(self, topic: Topic) -> None:
        """What is not valid is dead-lettered without an attempt of the handler; the reason names no value."""
        listener = await topic.listen(event=Tested)
        await (await topic.bus()).publish_message(POSTS, message("invalid", data={"name": [_CANARY]}))
        await listener.until_settled(1, "dead_letter")
        await self._check_reason(topic, listener.subscription.name, "invalid", 1)
        assert listener.begun == []

    @pulled
    async def test_64_newer_version_is_dead_lettered_after_its_attempts(self, topic: Topic) -> None:
        """A version that the service does not know yet is tried again, then dead-lettered, and kept for a replay."""
        listener = await topic.listen(subscription=topic.subscription(retry=_TWICE), event=Tested)
        await (await topic.bus()).publish_message(POSTS, Newer(name=_CANARY, count=2))
        await listener.until_settled(1, "dead_letter")
        await self._check_reason(topic, listener.subscription.name, "unknown_version", 2)
        assert len(listener.receiver.which("nack")) == 1
        if DEAD_LETTERS in self.capabilities:  # a replay after the deployment must not have lost the version
            await (await topic.bus()).replay_dead_letters(listener.subscription.name)
            await listener.until_settled(2, "dead_letter")
            await self._check_reason(topic, listener.subscription.name, "unknown_version", 2)
        assert listener.begun == []

    async def _check_reason(self, topic: Topic, subscription: str, reason: str, attempts: int) -> None:
        if DEAD_LETTERS not in self.capabilities:
            return
        (letter,) = await (await topic.bus()).list_dead_letters(subscription)
        assert (letter.reason.reason, letter.reason.attempts) == (reason, attempts)
        assert _CANARY not in letter.reason.description, "the reason quotes a value"
