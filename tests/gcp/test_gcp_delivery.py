"""The subscriptions that exist decide between push and pull."""

from __future__ import annotations

import pytest
from google.pubsub_v1 import types

from support.gcp.messages import Broker
from totoms.errors import AccessDenied, ConfigurationError, NotFound
from totoms.messages.delivery import choose_delivery
from totoms.messages.subscription import Existing, Subscription

PATH = "/blog/events"
OURS = Subscription("blog-posts", "posts-topic", "posts")


def pushes_to(broker: Broker, name: str, url: str) -> None:
    broker.operator.subscriptions.create_subscription(
        types.Subscription(
            name=f"projects/{broker.project}/subscriptions/{name}",
            topic=broker.topic,
            push_config=types.PushConfig(push_endpoint=url),
        )
    )


async def test_nothing_is_there_at_first(broker: Broker) -> None:
    bus = broker.bus()
    assert await bus._existing(OURS) == Existing()
    assert (await choose_delivery(bus, OURS, events_path=PATH, base_url=""))[0] == "pull"
    assert (await choose_delivery(bus, OURS, events_path=PATH, base_url="https://blog.example"))[0] == "push"


async def test_own_pull_subscription_is_found(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(OURS, create=True)
    found = await bus._existing(OURS)
    assert found is not None
    assert (found.pull, found.push) == (True, ())
    assert found.drain == "gcloud pubsub subscriptions delete projects/project-one/subscriptions/blog-posts"
    assert (await choose_delivery(bus, OURS, events_path=PATH, base_url="https://blog.example"))[0] == "pull"


async def test_push_subscription_made_by_hand_is_found(broker: Broker) -> None:
    bus = broker.bus()
    pushes_to(broker, "made-by-hand", "https://blog.example/blog/events")
    pushes_to(broker, "shop", "https://shop.example/shop/events")
    found = await bus._existing(OURS)
    assert found is not None
    places = dict(zip(found.push, found.dead_letters, strict=True))
    place = places["https://blog.example/blog/events"]
    assert place.startswith("the topic 'projects/")
    assert place.endswith("/topics/made-by-hand-dead'")
    assert (await choose_delivery(bus, OURS, events_path=PATH, base_url=""))[0] == "push"
    assert (await choose_delivery(bus, OURS, events_path="/other/events", base_url=""))[0] == "pull"


async def test_both_kinds_end_the_start(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(OURS, create=True)
    pushes_to(broker, "made-by-hand", "https://blog.example/blog/events")
    with pytest.raises(ConfigurationError, match="handled twice"):
        await choose_delivery(bus, OURS, events_path=PATH, base_url="")


@pytest.mark.parametrize("denied", ["ListTopicSubscriptions", "GetSubscription"])
async def test_denied_look_names_the_right(broker: Broker, denied: str) -> None:
    pushes_to(broker, "shop", "https://shop.example/shop/events")
    broker.server.denied.add(denied)
    bus = broker.bus()
    with pytest.raises(AccessDenied, match=r"pubsub\.subscriptions\.get"):
        await bus._existing(OURS)
    with pytest.raises(ConfigurationError, match=r"delivery="):
        await choose_delivery(bus, OURS, events_path=PATH, base_url="")


async def test_own_pull_subscription_decides_where_the_rest_may_not_be_seen(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(OURS, create=True)
    broker.server.denied.add("ListTopicSubscriptions")
    assert (await choose_delivery(bus, OURS, events_path=PATH, base_url="https://blog.example"))[0] == "pull"


async def test_missing_topic_is_not_found(broker: Broker) -> None:
    with pytest.raises(NotFound):
        await broker.bus()._existing(Subscription("blog-orders", "orders-topic", "orders"))
