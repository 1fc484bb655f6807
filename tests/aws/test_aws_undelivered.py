"""Messages that SNS could not push: kept in a queue, and pulled by the service when it is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests
from support.messages.kit import Handler, make_router, succeed
from totoms import ProcessingResponse, ProcessingStatus, TotoMessage
from totoms.context import new_cid
from totoms.errors import AccessDenied, NotFound
from totoms.logging.logger import TotoLogger
from totoms.messages.consumer import Consumer
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import ID_ATTRIBUTE, encode_message
from totoms.messages.receiver import Received
from totoms.messages.subscription import RetryPolicy, Subscription
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages.dead_letters import Pushed
from totoms_aws.messages.push_subscriptions import delivery_policy

DEADLINE = 120.0
ENDPOINT = "https://127.0.0.1:1/events"
BODY = encode_message(TotoMessage(type="postCreated", id="post-1", timestamp="now", cid="c")).decode()


@pytest.fixture
def pushed(topic: str) -> Subscription:
    return Subscription(f"blog-{new_cid()[:12]}", topic, "posts", delivery="push", push_url=ENDPOINT)


@pytest.fixture
def sqs(faulty_aws: AWSConfiguration) -> Any:
    return aws_kit.sdk("sqs", faulty_aws)


@pytest.fixture
def sns(faulty_aws: AWSConfiguration) -> Any:
    return aws_kit.sdk("sns", faulty_aws)


def attributes(sqs: Any, queue: str) -> dict[str, str]:
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])


def give_up(sqs: Any, queue: str, message_id: str) -> None:
    """Put a message into a queue as SNS does when it gives up an endpoint."""
    envelope = {
        "Type": "Notification",
        "MessageId": "of-sns",
        "Message": BODY,
        "MessageAttributes": {ID_ATTRIBUTE: {"Type": "String", "Value": message_id}},
    }
    why = {"RequestID": "r", "ErrorCode": "HTTP_503", "ErrorMessage": "the endpoint was away"}
    sqs.send_message(
        QueueUrl=sqs.get_queue_url(QueueName=queue)["QueueUrl"],
        MessageBody=json.dumps(envelope),
        MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in why.items()},
    )


async def handle(bus: BusOfTests, pushed: Subscription, handler: Any, until: Callable[[], bool]) -> None:
    """Be back: take what was given up, until the test says so."""
    undelivered = await bus._undelivered(pushed)
    assert undelivered is not None
    consumer = Consumer(undelivered, make_router(handler), max_concurrency=4, logger=TotoLogger("blog"))
    consumer.start()
    try:
        async with asyncio.timeout(DEADLINE):
            while not until():
                await asyncio.sleep(0.05)
    finally:
        await consumer.stop(DEADLINE)


async def test_push_subscription_has_a_queue_for_undelivered_messages(
    bus: BusOfTests, pushed: Subscription, sqs: Any, sns: Any
) -> None:
    await bus._subscribe_push(pushed, create=True)
    queue, dead = (attributes(sqs, f"{pushed.name}-{kind}") for kind in ("undelivered", "dead"))
    assert json.loads(queue["RedrivePolicy"])["deadLetterTargetArn"] == dead["QueueArn"]
    (statement,) = json.loads(queue["Policy"])["Statement"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": pushed.topic}}
    (subscribed,) = sns.list_subscriptions_by_topic(TopicArn=pushed.topic)["Subscriptions"]
    assert subscribed["Endpoint"] == ENDPOINT
    await bus._subscribe_push(pushed, create=True)  # a second time nothing changes
    assert attributes(sqs, f"{pushed.name}-undelivered")["Policy"] == queue["Policy"]


async def test_queues_that_may_not_be_made_are_not_needed_without_dead_letters(
    bus: BusOfTests, pushed: Subscription, faults: FaultyAWS, sns: Any
) -> None:
    faults.rule(matches=lambda request: request.operation == "CreateQueue", status=403, code="AccessDenied")
    with pytest.raises(AccessDenied, match=f"{pushed.name}-dead"):
        await bus._subscribe_push(pushed, create=True)
    assert sns.list_subscriptions_by_topic(TopicArn=pushed.topic)["Subscriptions"] == []
    without = replace(pushed, dead_letters=False)
    await bus._subscribe_push(without, create=True)
    (subscribed,) = sns.list_subscriptions_by_topic(TopicArn=pushed.topic)["Subscriptions"]
    assert subscribed["Endpoint"] == ENDPOINT
    await bus._subscribe_push(without, create=False)
    with pytest.raises(NotFound, match=f"{pushed.name}-dead"):
        await bus._subscribe_push(pushed, create=False)


@pytest.mark.parametrize(
    "retry", [RetryPolicy(), RetryPolicy(1), RetryPolicy(1000, 0.0, 1.0), RetryPolicy(3, 600, 900)]
)
def test_sns_tries_for_just_under_the_hour_that_it_allows(retry: RetryPolicy) -> None:
    policy = json.loads(delivery_policy(retry))["healthyRetryPolicy"]
    rising = policy["numRetries"] - policy["numMinDelayRetries"] - policy["numMaxDelayRetries"]
    steady = (
        policy["numMinDelayRetries"] * policy["minDelayTarget"]
        + policy["numMaxDelayRetries"] * policy["maxDelayTarget"]
    )
    most, least = steady + rising * policy["maxDelayTarget"], steady + rising * policy["minDelayTarget"]
    assert 3000 < least <= most < 3600
    assert policy["numRetries"] <= 100


async def test_service_that_is_back_takes_what_sns_gave_up(bus: BusOfTests, pushed: Subscription, sqs: Any) -> None:
    await bus._subscribe_push(pushed, create=True)
    for number in range(5):
        give_up(sqs, f"{pushed.name}-undelivered", f"m-{number}")
    handler = Handler(succeed)
    await handle(bus, pushed, handler, lambda: len(handler.seen) == 5)
    seen = [message.delivery for message in handler.seen if message.delivery]
    assert sorted(one.message_id for one in seen) == [f"m-{number}" for number in range(5)]
    assert {(one.subscription, one.topic) for one in seen} == {(pushed.name, "posts")}
    assert {message.id for message in handler.seen} == {"post-1"}
    assert await bus.list_dead_letters(pushed.name) == []


async def test_what_fails_then_as_well_is_a_dead_letter_of_the_pushed_subscription(
    bus: BusOfTests, pushed: Subscription, sqs: Any
) -> None:
    await bus._subscribe_push(pushed, create=True)
    give_up(sqs, f"{pushed.name}-undelivered", "m-1")
    handler = Handler(lambda _message: ProcessingResponse(ProcessingStatus.FAILED))
    dead: list[Received] = []
    keep = bus._dead_letter

    async def noted(received: Received, reason: DeadLetterReason) -> None:
        await keep(received, reason)
        dead.append(received)

    vars(bus).update(_dead_letter=noted)
    await handle(bus, pushed, handler, lambda: bool(dead))
    (letter,) = await bus.list_dead_letters(pushed.name)
    assert (letter.message_id, letter.body.decode()) == ("m-1", BODY)
    assert (letter.reason.reason, letter.reason.attempts) == ("attempts_exhausted", 3)


async def test_dead_letter_of_a_pushed_subscription_is_replayed_to_that_subscription_alone(
    bus: BusOfTests, pushed: Subscription
) -> None:
    await bus._subscribe_push(pushed, create=True)
    envelope = json.dumps(
        {
            "Type": "Notification",
            "MessageId": "of-sns",
            "Message": BODY,
            "MessageAttributes": {ID_ATTRIBUTE: {"Type": "String", "Value": "m-1"}},
        }
    )
    received = Pushed(BODY.encode(), "m-1", 3, pushed, envelope=envelope)
    await bus._dead_letter(received, DeadLetterReason("attempts_exhausted", "FAILED", "", 3))
    assert await bus.replay_dead_letters(pushed.name) == 1
    handler = Handler(succeed)
    await handle(bus, pushed, handler, lambda: bool(handler.seen))
    (delivery,) = [message.delivery for message in handler.seen if message.delivery]
    assert (delivery.message_id, delivery.attempt) == ("m-1", 1)
    assert await bus.list_dead_letters(pushed.name) == []


async def test_dead_letter_that_sns_itself_put_among_the_dead_ones_is_marked_undelivered(
    bus: BusOfTests, pushed: Subscription, sqs: Any
) -> None:
    await bus._subscribe_push(pushed, create=True)
    give_up(sqs, f"{pushed.name}-dead", "m-1")
    (letter,) = await bus.list_dead_letters(pushed.name)
    assert (letter.reason.reason, letter.reason.error_class) == ("undelivered", "HTTP_503")


async def test_without_the_queue_there_is_nothing_to_pull(bus: BusOfTests, pushed: Subscription) -> None:
    assert await bus._undelivered(pushed) is None


async def test_hand_made_subscription_that_would_lose_messages_is_reported_with_the_command(
    bus: BusOfTests, pushed: Subscription, sns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sns.subscribe(TopicArn=pushed.topic, Protocol="https", Endpoint=ENDPOINT, ReturnSubscriptionArn=True)
    arn = made["SubscriptionArn"] if made["SubscriptionArn"].startswith("arn:") else f"{pushed.topic}:made-by-hand"
    found: dict[str, str] = {}
    monkeypatch.setattr("totoms_aws.messages.push_subscriptions.find_subscription", lambda *_: arn)
    monkeypatch.setattr(
        type(bus._topics), "sns", property(lambda _self: _Answering(sns, found)), raising=True
    )  # ministack knows no delivery policy of its own
    lacking = await bus._push_lacks(pushed, ENDPOINT)
    assert "no redrive policy" in lacking
    assert "given up by SNS after a few minutes" in lacking
    assert lacking.count(f"aws sns set-subscription-attributes --subscription-arn {arn} --attribute-name") == 2
    assert "push-posts-undelivered" in lacking
    found.update(RedrivePolicy='{"deadLetterTargetArn": "x"}', EffectiveDeliveryPolicy=delivery_policy(RetryPolicy()))
    assert await bus._push_lacks(pushed, ENDPOINT) == ""


class _Answering:
    def __init__(self, sns: Any, found: dict[str, str]) -> None:
        self._sns, self._found = sns, found

    def get_subscription_attributes(self, **_: str) -> dict[str, Any]:
        return {"Attributes": self._found}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sns, name)


async def test_queue_that_is_empty_is_left_alone_for_a_while(bus: BusOfTests, pushed: Subscription, sqs: Any) -> None:
    vars(bus).update(undelivered_pause=3600.0)
    await bus._subscribe_push(pushed, create=True)
    undelivered = await bus._undelivered(pushed)
    assert undelivered is not None
    give_up(sqs, f"{pushed.name}-undelivered", "m-1")
    assert [one.message_id for one in await bus._receive(undelivered.subscription, 4, 5.0)] == ["m-1"]
    assert await bus._receive(undelivered.subscription, 4, 0.1) == []
    give_up(sqs, f"{pushed.name}-undelivered", "m-2")
    assert await bus._receive(undelivered.subscription, 4, 0.1) == []
    waiting = asyncio.create_task(bus._receive(undelivered.subscription, 4, 3600.0))
    await asyncio.sleep(0)
    await bus._stop_receiving(undelivered.subscription)
    async with asyncio.timeout(DEADLINE):
        assert await waiting == []
