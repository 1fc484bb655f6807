"""A subscription that is deleted while it is received from: behaviour 68."""

from __future__ import annotations

from totoms.testing.contract import Contract
from totoms.testing.messages.decorators import pulled
from totoms.testing.messages.flow import Blocked
from totoms.testing.messages.topic import Topic


class Vanished(Contract):
    """Behaviour 68."""

    @pulled
    async def test_68_subscription_that_vanished_is_created_again(self, topic: Topic) -> None:
        """A consumer whose subscription was deleted creates it again, and receives what is published then."""
        listener = await topic.listen()
        await topic.publish("before")
        await listener.until_settled(1)
        if not await topic.harness.delete_subscription(listener.subscription):
            return
        await listener.until_resubscribed()
        (message_id,) = await topic.publish("after")
        await listener.until_settled(2)
        assert (listener.ids, listener.attempts) == (["before", "after"], [1, 1])
        assert listener.receiver.received[-1].message_id == message_id

    @pulled
    async def test_68_handler_outlives_its_subscription(self, topic: Topic) -> None:
        """A handler that runs while its subscription is deleted runs to its end, and later messages are settled."""
        blocked = Blocked()
        listener = await topic.listen(blocked, max_concurrency=2)
        await topic.publish("running")
        await listener.until_begun("running")
        if not await topic.harness.delete_subscription(listener.subscription):
            blocked.finish.set()
            return
        await listener.until_resubscribed()
        await topic.publish("after")
        await listener.until_begun("after")
        blocked.finish.set()
        await listener.until_settled(1)
        await topic.barrier()
        assert listener.ids == ["running", "after"]
        assert listener.settled == {"after"} | {one for one in listener.settled if one.startswith("barrier")}
        assert listener.cut == []
