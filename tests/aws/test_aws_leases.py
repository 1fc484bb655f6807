"""Leases of SQS and what ends them: release, nack, dead letter, replay."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS, Request
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, publish
from totoms.errors import LeaseLost
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import ID_ATTRIBUTE
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages.naming import dead_queue_name, queue_name, subscription_of
from totoms_aws.messages.receiver import EARLIER_ATTEMPTS, SQSReceiver
from totoms_aws.messages.subscriptions import Source

REASON = DeadLetterReason("non_retryable", "ValueError", "It is not wanted.", 1)


def is_hiding(request: Request) -> bool:
    return request.operation == "ChangeMessageVisibilityBatch"


@pytest.fixture
def sqs(faulty_aws: AWSConfiguration) -> Any:
    return aws_kit.sdk("sqs", faulty_aws)


async def received(bus: BusOfTests, subscription: Subscription) -> Received:
    (one,) = await bus._receive(subscription, 1, 20.0)
    return one


async def test_lease_that_was_set_is_asked_for_with_each_message_and_renewal(
    bus: BusOfTests, topic: str, faulty_aws: AWSConfiguration, faults: FaultyAWS, sqs: Any
) -> None:
    bus.use_lease(7200.0)
    made = Subscription("blog-long-lease", topic, "posts")
    await bus._subscribe(made, create=True)
    url = sqs.get_queue_url(QueueName=queue_name("blog-long-lease"))["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert found["VisibilityTimeout"] == "7200"
    publish(faulty_aws, topic, "a body", {})
    one = await received(bus, made)
    assert one.lease.seconds == 7200
    assert await bus._extend([one]) == [None]
    renewals = [request for request in faults.requests if is_hiding(request)]
    assert "7200" in str(renewals[-1].body)


def source_of(bus: BusOfTests, one: Received) -> Source:
    receiver = bus._by(one)
    assert isinstance(receiver, SQSReceiver)
    return receiver.source


@pytest.mark.parametrize("nonsense", ["9" * 5000, "\N{ARABIC-INDIC DIGIT THREE}", "-1", "many"])
async def test_invalid_earlier_attempts_are_ignored(
    bus: BusOfTests, subscription: Subscription, topic: str, faulty_aws: AWSConfiguration, nonsense: str
) -> None:
    publish(faulty_aws, topic, "a body", {EARLIER_ATTEMPTS: nonsense})
    one = await received(bus, subscription)
    assert (one.body, one.attempt) == (b"a body", 1)


async def test_message_is_tried_again_after_the_renewal_that_is_under_way(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration, sqs: Any
) -> None:
    publish(faulty_aws, topic, "a body", {})
    one = await received(bus, subscription)
    hiding = faults.rule(matches=is_hiding, hold=threading.Event(), times=1)
    renewing = asyncio.ensure_future(bus._extend([one]))
    while not hiding.seen:
        await asyncio.sleep(0.01)
    retrying = asyncio.ensure_future(bus._nack(one, 0.0))
    for _ in range(3):  # one request is answered after the other: what would be sent by now has come by then
        await asyncio.to_thread(sqs.list_queues)
    assert sum(map(is_hiding, faults.requests)) == 1
    assert await bus._extend([one]) == [None]  # it is leaving, and renewed no more
    assert sum(map(is_hiding, faults.requests)) == 1
    assert hiding.hold is not None
    hiding.hold.set()
    await asyncio.gather(renewing, retrying)
    assert (await received(bus, subscription)).attempt == 2


async def test_renewal_of_what_was_settled_meanwhile_is_not_a_lost_lease(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    publish(faulty_aws, topic, "a body", {})
    one = await received(bus, subscription)
    hiding = faults.rule(matches=is_hiding, hold=threading.Event(), times=1)
    renewing = asyncio.ensure_future(bus._extend([one]))
    while not hiding.seen:
        await asyncio.sleep(0.01)
    assert await bus._ack([one]) == [None]
    assert hiding.hold is not None
    hiding.hold.set()
    assert await renewing == [None]


async def test_lease_is_renewed_in_a_thread_or_known_to_have_ended(
    bus: BusOfTests, subscription: Subscription, topic: str, faulty_aws: AWSConfiguration, sqs: Any
) -> None:
    publish(faulty_aws, topic, "a body", {})
    one = await received(bus, subscription)
    receiver = bus._by(one)
    assert isinstance(receiver, SQSReceiver)
    before = one.lease.expires
    await asyncio.to_thread(receiver._renew, [one])
    assert one.lease.expires > before
    sqs.delete_message(QueueUrl=receiver.source.queue.url, ReceiptHandle=one.lease.handle["ReceiptHandle"])
    await asyncio.to_thread(receiver._renew, [one])
    assert one.lease.state == "lost"
    with pytest.raises(LeaseLost):
        await bus._nack(one, 0.0)


async def test_message_that_is_put_back_is_not_delayed_by_the_queue(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    publish(faulty_aws, topic, "a body", {})
    one = await received(bus, subscription)
    await bus._release([one])
    again = await received(bus, subscription)
    assert (again.message_id, again.attempt) == (one.message_id, 1)
    await bus._dead_letter(again, REASON)
    assert await bus.replay_dead_letters(subscription.name) == 1
    assert (await received(bus, subscription)).message_id == one.message_id
    # The emulator takes a delay of 0 for none given, and the queue's own instead, so what was asked for is looked at.
    sent = [json.loads(request.body) for request in faults.requests if request.operation == "SendMessage"]
    back = [request for request in sent if request["QueueUrl"] == source_of(bus, one).queue.url]
    assert [request["DelaySeconds"] for request in back] == [0, 0]


async def test_dead_letters_are_listed_though_they_cannot_be_shown_to_others_again(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    publish(faulty_aws, topic, "a body", {})
    await bus._dead_letter(await received(bus, subscription), REASON)
    faults.rule(matches=is_hiding, status=403, code="AccessDenied")
    (letter,) = await bus.list_dead_letters(subscription.name)
    assert letter.body == b"a body"


async def test_listing_hides_dead_letters_no_longer_than_it_takes_and_gives_them_back_at_once(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    publish(faulty_aws, topic, "a body", {})
    await bus._dead_letter(await received(bus, subscription), REASON)
    assert bus._store_of(subscription.name).listing_hides

    async def hidden_for(limit: int) -> int:
        faults.requests.clear()
        assert len(await bus.list_dead_letters(subscription.name, limit)) == 1  # again: it was given back
        first, *_ = [json.loads(one.body) for one in faults.requests if one.operation == "ReceiveMessage"]
        given_back = [json.loads(one.body) for one in faults.requests if is_hiding(one)]
        assert [entry["VisibilityTimeout"] for request in given_back for entry in request["Entries"]] == [0]
        return int(first["VisibilityTimeout"])

    assert await hidden_for(10) == 20
    assert await hidden_for(3000) == 40
    assert await hidden_for(1_000_000) == 60


async def test_dead_letters_are_counted_without_receiving_them(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    assert await bus._store_of(subscription.name).count() == 0
    publish(faulty_aws, topic, "a body", {})
    await bus._dead_letter(await received(bus, subscription), REASON)
    faults.requests.clear()
    assert await bus._store_of(subscription.name).count() == 1
    assert "ReceiveMessage" not in [request.operation for request in faults.requests]


async def test_subscriptions_with_dead_letters_are_listed(bus: BusOfTests, subscription: Subscription) -> None:
    assert subscription.name in await bus._list_subscriptions()


@pytest.mark.parametrize("queue", ["blog-posts", "blog-posts.fifo"])
def test_subscription_is_known_by_the_name_of_its_dead_letter_queue(queue: str) -> None:
    assert subscription_of(dead_queue_name(queue)) == "blog-posts"
    assert subscription_of(queue) == ""


async def test_dead_letters_of_one_id_are_all_deleted(
    bus: BusOfTests, subscription: Subscription, topic: str, faulty_aws: AWSConfiguration, sqs: Any
) -> None:
    publish(faulty_aws, topic, "a body", {ID_ATTRIBUTE: "the-same"})
    one = await received(bus, subscription)
    await bus._dead_letter(one, REASON)
    same = {ID_ATTRIBUTE: {"DataType": "String", "StringValue": "the-same"}}
    more = [{"Id": str(number), "MessageBody": "a body", "MessageAttributes": same} for number in range(10)]
    sqs.send_message_batch(QueueUrl=source_of(bus, one).dead.url, Entries=more)
    assert await bus.purge_dead_letters(subscription.name) == 11
    assert await bus.list_dead_letters(subscription.name) == []


async def test_dead_letter_that_came_in_an_envelope_is_delivered_again_without_where_there_is_none_any_more(
    bus: BusOfTests, subscription: Subscription, topic: str, faulty_aws: AWSConfiguration
) -> None:
    sns: Any = aws_kit.sdk("sns", faulty_aws)
    (subscribed,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert subscribed["Endpoint"].endswith(queue_name(subscription.name))

    async def deliver_raw(raw: str) -> None:
        sns.set_subscription_attributes(
            SubscriptionArn=subscribed["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue=raw
        )
        await bus._subscribe(subscription, create=False)

    await deliver_raw("false")
    publish(faulty_aws, topic, "a body", {"traceparent": "00-1"})
    one = await received(bus, subscription)
    await bus._dead_letter(one, REASON)
    await deliver_raw("true")
    (letter,) = await bus.list_dead_letters(subscription.name)
    assert letter.body == b"a body"
    assert await bus.replay_dead_letters(subscription.name) == 1
    again = await received(bus, subscription)
    assert (again.body, again.message_id, again.attempt) == (b"a body", one.message_id, 1)
    assert again.attributes["traceparent"] == "00-1"
