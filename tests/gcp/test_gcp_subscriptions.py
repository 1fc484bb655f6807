"""The subscriptions that a service finds, makes, or reports as missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from grpc import StatusCode

from support.gcp.messages import Broker
from totoms.errors import AccessDenied, BackendError, ConfigurationError, NotFound
from totoms.messages.subscription import RetryPolicy, Subscription

PULLED = Subscription("shop-posts", "posts-topic", "posts")
PUSHED = Subscription(
    "shop-posts",
    "posts-topic",
    "posts",
    delivery="push",
    push_url="https://shop.example/events",
    retry=RetryPolicy(7, 2.5, 900.0),
)
ACCOUNT = "pusher@project.iam.gserviceaccount.com"


async def test_subscription_is_made_with_its_policies_and_never_expires(broker: Broker) -> None:
    await broker.bus()._subscribe(Subscription("shop-posts", "posts-topic", "posts", ordered=True), create=True)
    made = broker.made("shop-posts")
    assert made.topic == broker.topic
    assert made.ack_deadline_seconds == 60
    assert made.enable_message_ordering
    assert made.HasField("expiration_policy")
    assert made.expiration_policy.ttl.seconds == 0
    assert not made.HasField("retry_policy"), "the core's back-off would come on top of the broker's"
    assert made.dead_letter_policy.dead_letter_topic.endswith("/topics/shop-posts-dead")
    assert made.dead_letter_policy.max_delivery_attempts == 10
    dead = broker.made("shop-posts-dead")
    assert dead.topic == made.dead_letter_policy.dead_letter_topic
    assert dead.message_retention_duration.seconds == 31 * 86_400
    assert dead.HasField("expiration_policy")


async def test_lease_that_was_set_becomes_the_deadline_of_new_and_of_existing_subscriptions(broker: Broker) -> None:
    bus = broker.bus()
    bus.use_lease(600.0)
    await bus._subscribe(PULLED, create=True)
    assert broker.made("shop-posts").ack_deadline_seconds == 600
    another = broker.bus()
    another.use_lease(90.5)
    await another._subscribe(PULLED, create=True)
    assert broker.made("shop-posts").ack_deadline_seconds == 91
    await broker.bus()._subscribe(PULLED, create=True)
    assert broker.made("shop-posts").ack_deadline_seconds == 91, "left out, it is not touched"


@pytest.mark.parametrize(("attempts", "policy"), [(1, 6), (5, 10), (96, 100), (1000, 100)])
async def test_dead_letter_policy_leaves_the_core_the_first_word(broker: Broker, attempts: int, policy: int) -> None:
    subscription = Subscription("shop-posts", "posts-topic", "posts", retry=RetryPolicy(attempts))
    await broker.bus()._subscribe(subscription, create=True)
    assert broker.made("shop-posts").dead_letter_policy.max_delivery_attempts == policy


async def test_push_subscription_has_a_token_and_the_retry_policy(broker: Broker) -> None:
    await broker.bus(push_service_account=ACCOUNT)._subscribe_push(PUSHED, create=True)
    made = broker.made("shop-posts")
    assert made.push_config.push_endpoint == PUSHED.push_url
    assert made.push_config.oidc_token.service_account_email == ACCOUNT
    assert made.push_config.oidc_token.audience == PUSHED.push_url
    assert (made.retry_policy.minimum_backoff.seconds, made.retry_policy.maximum_backoff.seconds) == (10, 600)
    assert made.dead_letter_policy.max_delivery_attempts == 100
    assert made.ack_deadline_seconds == 600


async def test_push_audience_may_be_configured(broker: Broker) -> None:
    await broker.bus(push_service_account=ACCOUNT, push_audience="shop")._subscribe_push(PUSHED, create=True)
    assert broker.made("shop-posts").push_config.oidc_token.audience == "shop"


async def test_push_without_an_account_is_a_configuration_error(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="GCP_PUSH_SERVICE_ACCOUNT"):
        await broker.bus()._subscribe_push(PUSHED, create=True)


async def test_subscription_follows_a_new_address_and_a_change_to_pull(broker: Broker) -> None:
    bus = broker.bus(push_service_account=ACCOUNT)
    await bus._subscribe_push(PUSHED, create=True)
    broker.made("shop-posts").push_config.push_endpoint = "https://old.example/events"
    await bus._subscribe_push(PUSHED, create=True)
    assert broker.made("shop-posts").push_config.push_endpoint == PUSHED.push_url
    await bus._subscribe(PULLED, create=True)
    assert not broker.made("shop-posts").push_config.push_endpoint


async def test_existing_subscription_is_left_as_it_is(broker: Broker) -> None:
    await broker.bus()._subscribe(PULLED, create=True)
    broker.change("shop-posts", ack_deadline_seconds=33, enable_exactly_once_delivery=True)
    broker.server.calls.clear()
    await broker.bus()._subscribe(PULLED, create=True)
    assert broker.made("shop-posts").ack_deadline_seconds == 33
    assert set(broker.server.calls) == {"GetSubscription"}


async def test_existing_subscription_is_given_the_dead_letter_policy_it_lacks(broker: Broker) -> None:
    broker.operator.subscriptions.create_subscription(name=_path("shop-posts"), topic=broker.topic)
    await broker.bus()._subscribe(PULLED, create=True)
    assert broker.made("shop-posts").dead_letter_policy.max_delivery_attempts == 10


async def test_without_create_everything_that_is_missing_is_named_and_nothing_is_made(broker: Broker) -> None:
    with pytest.raises(NotFound) as caught:
        await broker.bus()._subscribe(PULLED, create=False)
    assert _path("shop-posts") in caught.value.message
    assert broker.topic in caught.value.message
    assert _path("shop-posts-dead") in caught.value.message
    assert "create_subscriptions is off" in caught.value.message
    assert broker.server.subscriptions == {}
    assert set(broker.server.topics) == {broker.topic}


async def test_without_create_a_missing_dead_letter_policy_is_named(broker: Broker) -> None:
    broker.operator.subscriptions.create_subscription(name=_path("shop-posts"), topic=broker.topic)
    with pytest.raises(NotFound, match="dead-letter policy"):
        await broker.bus()._subscribe(PULLED, create=False)


async def test_without_create_too_few_attempts_are_named(broker: Broker) -> None:
    await broker.bus()._subscribe(PULLED, create=True)
    patient = Subscription("shop-posts", "posts-topic", "posts", retry=RetryPolicy(50))
    with pytest.raises(NotFound, match="allows 50 attempts"):
        await broker.bus()._subscribe(patient, create=False)
    await broker.bus()._subscribe(patient, create=True)
    await broker.bus()._subscribe(patient, create=False)


async def test_without_create_missing_order_is_named(broker: Broker) -> None:
    await broker.bus()._subscribe(PULLED, create=True)
    with pytest.raises(NotFound, match="message ordering of the subscription"):
        await broker.bus()._subscribe(Subscription("shop-posts", "posts-topic", "posts", ordered=True), create=False)


async def test_without_create_another_way_of_delivery_is_named(broker: Broker) -> None:
    bus = broker.bus(push_service_account=ACCOUNT)
    await bus._subscribe(PULLED, create=True)
    with pytest.raises(NotFound, match=f"push of .* to '{PUSHED.push_url}', as '{ACCOUNT}'"):
        await bus._subscribe_push(PUSHED, create=False)
    await bus._subscribe_push(PUSHED, create=True)
    await bus._subscribe_push(PUSHED, create=False)
    for field, value in {"service_account_email": "another@example.com", "audience": "another"}.items():
        token = broker.made("shop-posts").push_config.oidc_token
        before = getattr(token, field)
        setattr(token, field, value)
        with pytest.raises(NotFound, match="push of"):
            await bus._subscribe_push(PUSHED, create=False)
        setattr(token, field, before)
    with pytest.raises(NotFound, match=r"pull of .*, which pushes to"):
        await bus._subscribe(PULLED, create=False)


async def test_without_create_a_dead_letter_topic_of_the_operators_own_is_used(broker: Broker) -> None:
    dead = broker.operator.make_topic("graveyard")
    dead_path = f"projects/{broker.project}/topics/{dead}"
    broker.operator.subscriptions.create_subscription(
        request={
            "name": _path("shop-posts"),
            "topic": broker.topic,
            "dead_letter_policy": {"dead_letter_topic": dead_path, "max_delivery_attempts": 5},
        }
    )
    with pytest.raises(NotFound, match="graveyard") as caught:
        await broker.bus()._subscribe(PULLED, create=False)
    assert "shop-posts-dead" in caught.value.message
    broker.operator.subscriptions.create_subscription(name=_path("shop-posts-dead"), topic=dead_path)
    await broker.bus()._subscribe(PULLED, create=False)


async def test_without_create_only_reading_is_asked_for(broker: Broker) -> None:
    await broker.bus()._subscribe(PULLED, create=True)
    broker.server.denied = {"CreateTopic", "GetTopic", "CreateSubscription", "UpdateSubscription"}
    await broker.bus()._subscribe(PULLED, create=False)


@pytest.mark.parametrize(
    ("method", "named"), [("CreateTopic", "shop-posts-dead"), ("CreateSubscription", "shop-posts")]
)
async def test_what_may_not_be_made_is_named(broker: Broker, method: str, named: str) -> None:
    broker.server.denied = {method}
    with pytest.raises(AccessDenied, match=f"{named}.* missing, and the service may not create it"):
        await broker.bus()._subscribe(PULLED, create=True)


async def test_topic_need_not_be_readable(broker: Broker) -> None:
    broker.server.denied = {"GetTopic"}
    await broker.bus()._subscribe(PULLED, create=True)


async def test_subscription_to_another_topic_is_refused(broker: Broker) -> None:
    broker.operator.make_topic("other-topic")
    await broker.bus()._subscribe(Subscription("shop-posts", "other-topic", "posts"), create=True)
    for create in (True, False):
        with pytest.raises(BackendError, match="posts-topic"):
            await broker.bus()._subscribe(PULLED, create=create)


async def test_ordering_cannot_be_had_of_a_subscription_without(broker: Broker) -> None:
    await broker.bus()._subscribe(PULLED, create=True)
    with pytest.raises(BackendError, match="ordered"):
        await broker.bus()._subscribe(Subscription("shop-posts", "posts-topic", "posts", ordered=True), create=True)


async def test_ten_instances_that_start_at_once_all_subscribe(broker: Broker) -> None:
    await asyncio.gather(*(broker.bus()._subscribe(PULLED, create=True) for _ in range(10)))
    assert set(broker.server.subscriptions) == {_path("shop-posts"), _path("shop-posts-dead")}


async def test_topic_of_another_project_is_taken(broker: Broker) -> None:
    path = "projects/project-two/topics/theirs"
    broker.operator.topics.create_topic(name=path)
    await broker.bus(path)._subscribe(Subscription("shop-posts", path, "posts"), create=True)
    assert broker.made("shop-posts").topic == path


@pytest.mark.parametrize("topic", ["a", "a/b", "projects/p/subscriptions/x", "1abc", "topic name", ""])
async def test_what_is_not_a_name_of_a_topic_is_not_found_before_anything_is_sent(broker: Broker, topic: str) -> None:
    with pytest.raises(NotFound):
        await broker.bus()._subscribe(Subscription("shop-posts", topic, "posts"), create=True)
    assert not broker.server.calls.keys() - {"CreateTopic"}


async def test_broker_that_stumbles_while_subscribing_is_asked_again(broker: Broker) -> None:
    broker.server.faults["CreateSubscription"] += [StatusCode.UNAVAILABLE, StatusCode.ABORTED]
    broker.server.faults["GetSubscription"] += [StatusCode.UNAVAILABLE]
    await broker.bus()._subscribe(PULLED, create=True)
    assert _path("shop-posts") in broker.server.subscriptions


def _path(name: str) -> str:
    return f"projects/{Broker.project}/subscriptions/{name}"


async def test_limits_of_a_push_subscription_of_ours_are_made_as_wide_as_pub_sub_allows(broker: Broker) -> None:
    bus = broker.bus(push_service_account=ACCOUNT)
    await bus._subscribe_push(PUSHED, create=True)
    narrow = broker.made("shop-posts")
    narrow.dead_letter_policy.max_delivery_attempts = 5
    narrow.retry_policy.maximum_backoff.seconds = 60
    lacking = await bus._push_lacks(PUSHED, PUSHED.push_url or "")
    assert "after 5 deliveries" in lacking
    command = lacking.partition(": ")[2]
    assert command == (
        f"gcloud pubsub subscriptions update {_path('shop-posts')} --max-delivery-attempts 100 --min-retry-delay 10s "
        "--max-retry-delay 600s"
    )
    await bus._subscribe_push(PUSHED, create=True)
    made = broker.made("shop-posts")
    assert (made.dead_letter_policy.max_delivery_attempts, made.retry_policy.maximum_backoff.seconds) == (100, 600)
    assert await bus._push_lacks(PUSHED, PUSHED.push_url or "") == ""
    assert await bus._push_lacks(PUSHED, "https://other.example/events") == ""


async def test_dead_letter_topic_that_may_not_be_made_is_not_needed_without_dead_letters(broker: Broker) -> None:
    bus = broker.bus(push_service_account=ACCOUNT)
    broker.server.denied.add("CreateTopic")
    with pytest.raises(AccessDenied, match="shop-posts-dead"):
        await bus._subscribe_push(PUSHED, create=True)
    assert broker.server.subscriptions == {}
    without = replace(PUSHED, dead_letters=False)
    await bus._subscribe_push(without, create=True)
    assert not broker.made("shop-posts").dead_letter_policy.dead_letter_topic
    assert broker.made("shop-posts").retry_policy.maximum_backoff.seconds == 600
    await bus._subscribe_push(without, create=True)
    await bus._subscribe_push(without, create=False)
    with pytest.raises(NotFound, match="shop-posts-dead"):
        await bus._subscribe_push(PUSHED, create=False)
    assert "no dead-letter topic" in await bus._push_lacks(without, PUSHED.push_url or "")
    broker.server.denied.clear()
    await bus._subscribe_push(PUSHED, create=True)
    assert broker.made("shop-posts").dead_letter_policy.max_delivery_attempts == 100
    await bus._subscribe_push(without, create=True)
    assert broker.made("shop-posts").dead_letter_policy.max_delivery_attempts == 100, "what is there is not taken away"


async def test_hand_made_push_subscription_without_a_dead_letter_topic_is_warned_about(broker: Broker) -> None:
    address = "https://shop.example/events"
    broker.operator.subscriptions.create_subscription(
        name=_path("by-hand"), topic=broker.topic, push_config={"push_endpoint": address}
    )
    lacking = await broker.bus()._push_lacks(PUSHED, address)
    assert "no dead-letter topic" in lacking
    assert "--dead-letter-topic TOPIC --max-delivery-attempts 100" in lacking
