"""Wrong declarations of topics and handlers, and what is said of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from totoms import (
    ConfigurationError,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    ProcessingResponse,
    TotoEvent,
    TotoMessage,
    TotoMessageHandler,
    toto_handler,
    upcast,
)


class Abstract(TotoEvent):
    pass


class PostCreated(TotoEvent, type="postCreated"):
    pass


class WithAGap(TotoEvent, type="withAGap", version=3):
    pass


@upcast(WithAGap, from_version=1)
def _first(data: dict[str, Any]) -> dict[str, Any]:
    return data


@toto_handler
async def handle(message: TotoMessage[PostCreated]) -> None: ...


@toto_handler
async def with_a_gap(message: TotoMessage[WithAGap]) -> None: ...


async def undecorated(message: TotoMessage[PostCreated]) -> None: ...


class Handler(TotoMessageHandler[PostCreated]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> None: ...


class NoType(TotoMessageHandler):
    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        raise NotImplementedError


class NoMethod(TotoMessageHandler[PostCreated]):
    pass


class OfAbstract(TotoMessageHandler[Abstract]):
    async def process_message(self, message: TotoMessage[Abstract]) -> None: ...


class AsText(TotoMessageHandler["PostCreated"]):
    async def process_message(self, message: TotoMessage[PostCreated]) -> None: ...


class Gap(TotoMessageHandler[WithAGap]):
    async def process_message(self, message: TotoMessage[WithAGap]) -> None: ...


def topic(**more: Any) -> MessageBusTopicConfig:
    return MessageBusTopicConfig(**{"logical_name": "posts", "secret": "posts-topic", **more})


def handler(**more: Any) -> MessageBusHandlerConfig:
    return MessageBusHandlerConfig(**more)


def bus(**more: Any) -> MessageBusConfig:
    return MessageBusConfig(**more)


_OF_TOPICS = "must be the logical name of a topic, or a list of them; leave it out for every topic"

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: handler(), "MessageBusHandlerConfig.configuration: needs exactly one of handler_class and handler"),
    (
        lambda: handler(handler_class=Handler, handler=handle),
        "MessageBusHandlerConfig.configuration: needs exactly one of handler_class and handler",
    ),
    (
        lambda: handler(handler_class=handle),
        "MessageBusHandlerConfig.handler_class: handle is a function: write handler=handle",
    ),
    (
        lambda: handler(handler=Handler),
        "MessageBusHandlerConfig.handler: Handler is a class: write handler_class=Handler",
    ),
    (
        lambda: handler(handler=undecorated),
        "MessageBusHandlerConfig.handler: must be a function decorated with @toto_handler",
    ),
    (
        lambda: handler(handler="handle"),
        "MessageBusHandlerConfig.handler: must be a function decorated with @toto_handler",
    ),
    (
        lambda: handler(handler_class=dict),
        "MessageBusHandlerConfig.handler_class: must be a subclass of TotoMessageHandler",
    ),
    (
        lambda: handler(handler_class=NoType),
        "MessageBusHandlerConfig.handler_class: NoType names no event: write TotoMessageHandler[PostCreated], or "
        "implement get_handled_message_type",
    ),
    (
        lambda: handler(handler_class=NoMethod),
        "MessageBusHandlerConfig.handler_class: NoMethod does not implement process_message",
    ),
    (
        lambda: handler(handler_class=OfAbstract),
        'MessageBusHandlerConfig.handler_class: Abstract is abstract: declare `class Abstract(TotoEvent, type="...")`',
    ),
    (
        lambda: handler(handler_class=AsText),
        "MessageBusHandlerConfig.handler_class: AsText names its event as text: write the class itself",
    ),
    (
        lambda: handler(handler_class=Gap),
        "MessageBusHandlerConfig.handler_class: WithAGap needs an upcast from version 2",
    ),
    (
        lambda: handler(handler=with_a_gap),
        "MessageBusHandlerConfig.handler: WithAGap needs an upcast from version 2",
    ),
    (lambda: handler(handler=handle, topic=""), f"MessageBusHandlerConfig.topic: {_OF_TOPICS}"),
    (lambda: handler(handler=handle, topic=[]), f"MessageBusHandlerConfig.topic: {_OF_TOPICS}"),
    (lambda: handler(handler=handle, topic=["posts", ""]), f"MessageBusHandlerConfig.topic: {_OF_TOPICS}"),
    (
        lambda: handler(handler=handle, topics="posts"),
        "MessageBusHandlerConfig.topics: unknown field; did you mean 'topic'?",
    ),
    (
        lambda: topic(publishes=[Abstract]),
        'MessageBusTopicConfig.publishes: Abstract is abstract: declare `class Abstract(TotoEvent, type="...")`',
    ),
    (lambda: topic(publishes=[dict]), "MessageBusTopicConfig.publishes: dict is not a subclass of TotoEvent"),
    (
        lambda: topic(publishes=["postCreated"]),
        "MessageBusTopicConfig.publishes: a value of the class str is not a subclass of TotoEvent",
    ),
    (lambda: topic(publishes=PostCreated), "MessageBusTopicConfig.publishes: Input should be a valid list"),
    (
        lambda: topic(publishes=[PostCreated, PostCreated]),
        "MessageBusTopicConfig.publishes: two events 'postCreated version 1'",
    ),
    (lambda: topic(logical_name=""), "MessageBusTopicConfig.logical_name: String should have at least 1 character"),
    (lambda: topic(publish=[]), "MessageBusTopicConfig.publish: unknown field; did you mean 'publishes'?"),
    (lambda: bus(topics=[topic(), topic()]), "MessageBusConfig.topics: two topics 'posts'"),
    (
        lambda: bus(topics=[topic()], message_handlers=[handler(handler=handle), handler(handler=handle)]),
        f"MessageBusConfig.message_handlers: two handlers '{__name__}.handle'",
    ),
    (
        lambda: bus(topics=[topic()], message_handlers=[handler(handler=handle, topic="orders")]),
        "MessageBusConfig.configuration: handle names the undeclared topic 'orders': declared are 'posts'",
    ),
    (
        lambda: bus(topics=[topic(subscribe=False)], message_handlers=[handler(handler_class=Handler, topic="posts")]),
        "MessageBusConfig.configuration: Handler names the topic 'posts', which has subscribe=False",
    ),
]


@pytest.mark.parametrize(("declare", "said"), WRONG, ids=[said[:70] for _, said in WRONG])
def test_wrong_declaration_is_refused_with_one_line(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        declare()
    assert str(raised.value) == said
