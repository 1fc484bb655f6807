"""How many messages wait in the queue of a subscription."""

from __future__ import annotations

from dataclasses import replace

import pytest

from standins.aws.errors import FaultyAWS, Rule
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic
from totoms.errors import AccessDenied, NotFound, Unavailable
from totoms.messages.bus import MessageBus
from totoms.messages.subscription import Backlog, Subscription
from totoms_aws.configuration import AWSConfiguration


async def test_messages_that_are_being_handled_are_counted_as_well(
    bus: BusOfTests, faulty_aws: AWSConfiguration, subscription: Subscription
) -> None:
    for _ in range(3):
        aws_kit.sdk("sns", faulty_aws).publish(TopicArn=subscription.topic, Message="{}")
    (one,) = await bus._receive(subscription, 1, 10.0)
    assert await bus._backlog(subscription) == Backlog(3, None)
    assert await bus._ack([one]) == [None]
    assert await bus._backlog(subscription) == Backlog(2, None)


async def test_fifo_queue_and_queue_without_a_topic_are_counted(faulty_aws: AWSConfiguration) -> None:
    topic = make_topic(faulty_aws, fifo=True)
    bus: MessageBus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": topic})
    for subscription in (Subscription("shop-posts", topic, "posts"), Subscription("jobs", "", "")):
        await bus._subscribe(subscription, create=True)
        assert await bus._backlog(subscription) == Backlog(0, None)
    await bus.close()


async def test_missing_queue_is_reported(bus: BusOfTests, topic: str) -> None:
    with pytest.raises(NotFound, match="nobody-posts"):
        await bus._backlog(Subscription("nobody-posts", topic, "posts"))


async def test_pushed_subscription_has_no_count(bus: BusOfTests, subscription: Subscription) -> None:
    assert await bus._backlog(replace(subscription, delivery="push")) is None


async def test_denied_count_names_the_right(bus: BusOfTests, faults: FaultyAWS, subscription: Subscription) -> None:
    faults.rules.append(
        Rule(lambda request: request.operation == "GetQueueAttributes", status=403, code="AccessDeniedException")
    )
    with pytest.raises(AccessDenied, match="sqs:GetQueueAttributes"):
        await bus._backlog(subscription)


async def test_count_fails_while_sqs_is_away(bus: BusOfTests, faults: FaultyAWS, subscription: Subscription) -> None:
    faults.away = True
    with pytest.raises(Unavailable):
        await bus._backlog(subscription)
    faults.away = False
