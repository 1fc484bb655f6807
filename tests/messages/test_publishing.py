"""What may be published: arguments, topics that declare their events, and services without a message bus."""

from __future__ import annotations

from typing import Any

import pytest

from support.messages.kit import MemoryBus
from totoms import (
    ConfigurationError,
    InvalidArgument,
    MessageBusConfig,
    MessageBusTopicConfig,
    MessageDestination,
    NotSerializable,
    TotoEvent,
    TotoMessage,
    TotoMicroserviceConfiguration,
)
from totoms.testing import TestMicroservice

POSTS, OTHERS = MessageDestination(topic="posts"), MessageDestination(topic="others")


class PostCreated(TotoEvent, type="postCreated", version=2):
    slug: str


class PostCreated1(TotoEvent, type="postCreated"):
    id: int


class PostDeleted(TotoEvent, type="postDeleted"):
    slug: str


class Special(PostCreated, type="postCreated", version=2):
    more: int = 0


class SameType(TotoEvent, type="postCreated", version=2):
    slug: str | int


@pytest.fixture
def posts() -> MemoryBus:
    bus = MemoryBus(topics={"posts": "posts-topic", "others": "others-topic"})
    bus.publishes = {"posts": [PostCreated1, PostCreated]}
    return bus


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (PostCreated(slug="a"), "2"),
        (PostCreated1(id=1), "1"),
        (Special(slug="a", more=1), "2"),
        (SameType(slug="a"), "2"),
        (TotoMessage(data=PostCreated(slug="a")), "2"),
        (TotoMessage(type="postCreated", data={"slug": "a", "more": 1}), "2"),
        (TotoMessage(type="postCreated", data={"id": 1}), "1"),
    ],
)
async def test_declared_message_is_published_with_its_version(message: Any, version: str, posts: MemoryBus) -> None:
    await posts.publish_message(POSTS, message)
    assert posts.published[0].attributes["schemaVersion"] == version


DECLARED = "it declares PostCreated1 ('postCreated' version 1), PostCreated ('postCreated' version 2)."


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (PostDeleted(slug="a"), f"The topic 'posts' does not publish 'postDeleted' version 1; {DECLARED}"),
        (TotoMessage(type="postDeleted"), f"The topic 'posts' does not publish 'postDeleted'; {DECLARED}"),
        (
            TotoMessage(type="postCreated", data={"slug": 7}),
            "A message for the topic 'posts' is invalid: PostCreated: slug (string_type).",
        ),
        (SameType(slug=7), "A message for the topic 'posts' is invalid: PostCreated: slug (string_type)."),
    ],
)
async def test_what_is_not_declared_is_refused_before_anything_is_sent(
    message: Any, said: str, posts: MemoryBus
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await posts.publish_message(POSTS, message)
    assert str(raised.value) == said
    with pytest.raises(InvalidArgument):
        await posts.publish_messages(POSTS, [PostCreated(slug="a"), message])
    assert posts.published == []


async def test_raw_data_that_cannot_be_written_is_not_serializable(posts: MemoryBus) -> None:
    with pytest.raises(NotSerializable):
        await posts.publish_message(POSTS, TotoMessage(type="postCreated", data={"slug": {1, 2}}))


async def test_topic_without_a_declaration_takes_everything(posts: MemoryBus) -> None:
    await posts.publish_messages(OTHERS, [PostDeleted(slug="a"), TotoMessage(type="anything", data=[1])])
    assert len(posts.published) == 2


async def test_topic_that_declares_an_empty_list_publishes_nothing(posts: MemoryBus) -> None:
    posts.publishes = {"posts": []}
    with pytest.raises(InvalidArgument, match="it declares nothing"):
        await posts.publish_message(POSTS, PostCreated(slug="a"))


@pytest.mark.parametrize(
    ("destination", "message", "said"),
    [
        (
            "posts",
            TotoMessage(type="a"),
            "The destination is the text 'posts', not a MessageDestination: write MessageDestination(topic=\"posts\").",
        ),
        (
            None,
            TotoMessage(type="a"),
            'The destination is a NoneType, not a MessageDestination: write MessageDestination(topic="posts").',
        ),
        (
            POSTS,
            {"type": "a"},
            'The message is a dict, not a TotoMessage or a TotoEvent: write TotoMessage(type="postCreated", data=...).',
        ),
    ],
)
async def test_wrong_argument_is_one_line_that_says_what_to_write(
    destination: Any, message: Any, said: str, posts: MemoryBus
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await posts.publish_message(destination, message)
    assert str(raised.value) == said


async def test_declared_topic_of_a_service_is_enforced() -> None:
    topic = MessageBusTopicConfig(logical_name="posts", secret="posts-topic", publishes=[PostCreated])
    configuration = TotoMicroserviceConfiguration(
        service_name="blog", message_bus_configuration=MessageBusConfig(topics=[topic])
    )
    async with TestMicroservice(configuration) as blog:
        await blog.microservice.message_bus.publish_message(POSTS, PostCreated(slug="a"))
        with pytest.raises(InvalidArgument, match="does not publish 'postDeleted'"):
            await blog.microservice.message_bus.publish_message(POSTS, PostDeleted(slug="a"))
        assert [message.data for message in blog.published] == [PostCreated(slug="a")]


async def test_bus_of_a_service_that_declares_none_is_false_and_says_what_to_declare() -> None:
    async with TestMicroservice(TotoMicroserviceConfiguration(service_name="blog")) as blog:
        bus = blog.microservice.message_bus
        assert not bus
        for call in (
            lambda: bus.publish_message(POSTS, PostCreated(slug="a")),
            lambda: bus.publish_messages(POSTS, [PostCreated(slug="a")]),
            lambda: bus.list_dead_letters("blog-posts"),
        ):
            with pytest.raises(ConfigurationError, match=r"declares no message bus: set message_bus_configuration="):
                await call()
        await bus.close()
