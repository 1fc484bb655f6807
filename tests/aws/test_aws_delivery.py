"""What exists on SNS and SQS decides between push and pull."""

from __future__ import annotations

from typing import Any

import pytest

from standins.aws.errors import FaultyAWS, Rule
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic
from totoms.context import new_cid
from totoms.errors import AccessDenied, ConfigurationError
from totoms.messages.delivery import choose_delivery
from totoms.messages.subscription import Existing, Subscription
from totoms_aws.configuration import AWSConfiguration

PATH = "/blog/events"


@pytest.fixture
def ours(topic: str) -> Subscription:
    return Subscription(f"blog-{new_cid()[:12]}", topic, "posts")


def pushes_to(settings: AWSConfiguration, topic: str, url: str) -> None:
    sns: Any = aws_kit.sdk("sns", settings)
    sns.subscribe(TopicArn=topic, Protocol=url.partition(":")[0], Endpoint=url)


async def test_nothing_is_there_at_first_and_nothing_is_made(bus: BusOfTests, ours: Subscription) -> None:
    assert await bus._existing(ours) == Existing()
    assert await bus._existing(ours) == Existing()
    assert await choose_delivery(bus, ours, events_path=PATH, base_url="") == ("pull", Existing())


async def test_own_queue_is_the_pull_subscription(bus: BusOfTests, ours: Subscription) -> None:
    await bus._subscribe(ours, create=True)
    found = await bus._existing(ours)
    assert found is not None
    assert (found.pull, found.push) == (True, ())
    assert found.drain.startswith("aws sns unsubscribe --subscription-arn arn:")
    assert "aws sqs delete-queue --queue-url" in found.drain
    assert (await choose_delivery(bus, ours, events_path=PATH, base_url="https://blog.example"))[0] == "pull"


async def test_queue_of_another_service_is_not_ours(bus: BusOfTests, ours: Subscription) -> None:
    await bus._subscribe(Subscription(f"shop-{new_cid()[:12]}", ours.topic, "posts"), create=True)
    assert await bus._existing(ours) == Existing()


async def test_push_subscription_made_by_hand_is_found(
    bus: BusOfTests, faulty_aws: AWSConfiguration, ours: Subscription
) -> None:
    pushes_to(faulty_aws, ours.topic, "https://blog.example/blog/events")
    pushes_to(faulty_aws, ours.topic, "https://shop.example/shop/events")
    found = await bus._existing(ours)
    assert found is not None
    assert set(found.push) == {"https://blog.example/blog/events", "https://shop.example/shop/events"}
    assert set(found.dead_letters) == {"the queue 'push-posts-dead'"}
    assert len(found.dead_letters) == 2
    assert (await choose_delivery(bus, ours, events_path=PATH, base_url=""))[0] == "push"
    assert (await choose_delivery(bus, ours, events_path="/other/events", base_url=""))[0] == "pull"


async def test_both_kinds_end_the_start(bus: BusOfTests, faulty_aws: AWSConfiguration, ours: Subscription) -> None:
    await bus._subscribe(ours, create=True)
    pushes_to(faulty_aws, ours.topic, "https://blog.example/blog/events")
    with pytest.raises(ConfigurationError, match="handled twice"):
        await choose_delivery(bus, ours, events_path=PATH, base_url="")


@pytest.mark.parametrize(
    ("operation", "right"), [("ListSubscriptionsByTopic", "sns:ListSubscriptionsByTopic"), ("GetQueueUrl", "sqs:Get")]
)
async def test_denied_look_names_the_right(
    bus: BusOfTests, faults: FaultyAWS, ours: Subscription, operation: str, right: str
) -> None:
    code = "AuthorizationError" if operation.startswith("List") else "AccessDeniedException"
    faults.rules.append(Rule(lambda request: request.operation == operation, status=403, code=code))
    with pytest.raises(AccessDenied, match=right):
        await bus._existing(ours)
    with pytest.raises(ConfigurationError, match=r"delivery="):
        await choose_delivery(bus, ours, events_path=PATH, base_url="")


async def test_topic_of_another_region_or_none_is_reported(faulty_aws: AWSConfiguration) -> None:
    gone = make_topic(faulty_aws).rpartition(":")[0] + ":no-such-topic"
    bus = BusOfTests(aws_kit.environment(faulty_aws), {"posts": gone})
    from totoms.errors import NotFound

    with pytest.raises(NotFound):
        await bus._existing(Subscription("blog-posts", gone, "posts"))
    await bus.close()
