"""Batches, and many replayed dead letters: behaviours 65 and 66."""

from __future__ import annotations

import asyncio
from typing import Final

from totoms.context import new_cid
from totoms.errors import BackendError, MessageTooLarge, NonRetryableError
from totoms.messages.driver import DEAD_LETTERS
from totoms.messages.message import ProcessingResponse, TotoMessage
from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import on_topic, pulled
from totoms.testing.messages.topic import POSTS, Topic, message

_LONG_TYPE: Final = "t" * 1_100
"""Longer than an attribute may be on Pub/Sub (1,024 bytes), shorter than the limit of other brokers."""
_DEAD_LETTERS: Final = 12


def _refuse(_handled: TotoMessage) -> ProcessingResponse:
    raise NonRetryableError("as the test says")


class Batches(Contract):
    """Behaviours 65 and 66."""

    @pulled
    async def test_65_message_that_the_broker_refuses_fails_alone(self, topic: Topic) -> None:
        """Of messages published together, also by several callers, only the one that the broker refuses fails."""
        listener, bus, marker = await topic.listen(), await topic.bus(), f"refused{new_cid()}"
        if not await topic.harness.refuse(marker):
            return
        batch = [message("one"), message("refused", data=marker), message("three")]
        others = [message(f"other-{number}") for number in range(5)]
        results, *alone = await asyncio.gather(
            bus.publish_messages(POSTS, batch),
            *(bus.publish_message(POSTS, one) for one in others),
            bus.publish_message(POSTS, message("refused too", data=marker)),
            return_exceptions=True,
        )
        assert isinstance(results, list), f"the whole batch failed: {results!r}"
        assert [type(one) is str for one in results] == [True, False, True], results
        assert isinstance(results[1], BackendError)
        assert [type(one) is str for one in alone] == [True] * 5 + [False], alone
        assert isinstance(alone[-1], BackendError)
        await listener.until_settled(7)
        await topic.barrier()
        assert sorted(listener.ids) == ["one", *(one.id for one in others), "three"]

    @on_topic
    async def test_65_message_with_a_long_type_harms_no_other(self, topic: Topic) -> None:
        """A type too long for the broker raises `MessageTooLarge`, and other messages of the batch are published."""
        bus = await topic.bus()
        long = TotoMessage(type=_LONG_TYPE, id="long")
        results, other = await asyncio.gather(
            bus.publish_messages(POSTS, [message("one"), long, message("three")]),
            bus.publish_message(POSTS, message("other")),
        )
        assert isinstance(other, str)
        assert [isinstance(one, str) for one in (results[0], results[2])] == [True, True], results
        assert isinstance(results[1], str | MessageTooLarge), results

    @pulled
    async def test_66_replayed_dead_letters_are_taken_as_fast_as_new_messages(self, topic: Topic) -> None:
        """Many dead letters that are replayed at once are all handled, without a pause between them."""
        if DEAD_LETTERS not in topic.capabilities:
            return
        listener, bus = await topic.listen(_refuse, max_concurrency=2), await topic.bus()
        wanted = [f"letter-{number}" for number in range(_DEAD_LETTERS)]
        await bus.publish_messages(POSTS, [message(one) for one in wanted])
        await listener.until_settled(_DEAD_LETTERS, "dead_letter")
        await listener.stop(topic.harness.patience)
        assert await bus.replay_dead_letters(listener.subscription.name) == _DEAD_LETTERS
        again = await topic.listen(subscription=listener.subscription, max_concurrency=1)
        await again.until_settled(_DEAD_LETTERS)
        assert set(again.ids) == set(wanted)
