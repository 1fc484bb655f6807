"""Wrong declarations of topics and handlers, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.declarations import WrongDeclarations, each, error_of
from totoms import (
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

WRONG: WrongDeclarations = {
    "vanished subscriptions that nobody may create": (
        lambda: bus(vanished_subscriptions="create", create_subscriptions=False),
        'MessageBusConfig.configuration: vanished_subscriptions="create" needs create_subscriptions=True',
    ),
    "vanished subscriptions of an unknown kind": (
        lambda: bus(vanished_subscriptions="ignore"),
        "MessageBusConfig.vanished_subscriptions: Input should be 'create' or 'exit'",
    ),
    "handler without a function or class": (
        lambda: handler(),
        "MessageBusHandlerConfig.configuration: needs exactly one of handler_class and handler",
    ),
    "handler with a function and a class": (
        lambda: handler(handler_class=Handler, handler=handle),
        "MessageBusHandlerConfig.configuration: needs exactly one of handler_class and handler",
    ),
    "function as a class": (
        lambda: handler(handler_class=handle),
        "MessageBusHandlerConfig.handler_class: handle is a function: write handler=handle",
    ),
    "class as a function": (
        lambda: handler(handler=Handler),
        "MessageBusHandlerConfig.handler: Handler is a class: write handler_class=Handler",
    ),
    "function that is not decorated": (
        lambda: handler(handler=undecorated),
        "MessageBusHandlerConfig.handler: must be a function decorated with @toto_handler",
    ),
    "handler by name": (
        lambda: handler(handler="handle"),
        "MessageBusHandlerConfig.handler: must be a function decorated with @toto_handler",
    ),
    "class that handles nothing": (
        lambda: handler(handler_class=dict),
        "MessageBusHandlerConfig.handler_class: must be a subclass of TotoMessageHandler",
    ),
    "class without an event": (
        lambda: handler(handler_class=NoType),
        "MessageBusHandlerConfig.handler_class: NoType names no event: write TotoMessageHandler[PostCreated], or "
        "implement get_handled_message_type",
    ),
    "class without process_message": (
        lambda: handler(handler_class=NoMethod),
        "MessageBusHandlerConfig.handler_class: NoMethod does not implement process_message",
    ),
    "class of an abstract event": (
        lambda: handler(handler_class=OfAbstract),
        'MessageBusHandlerConfig.handler_class: Abstract is abstract: declare `class Abstract(TotoEvent, type="...")`',
    ),
    "class that names its event as text": (
        lambda: handler(handler_class=AsText),
        "MessageBusHandlerConfig.handler_class: AsText names its event as text: write the class itself",
    ),
    "class of an event without an upcast": (
        lambda: handler(handler_class=Gap),
        "MessageBusHandlerConfig.handler_class: WithAGap needs an upcast from version 2",
    ),
    "function of an event without an upcast": (
        lambda: handler(handler=with_a_gap),
        "MessageBusHandlerConfig.handler: WithAGap needs an upcast from version 2",
    ),
    "handler of a topic without a name": (
        lambda: handler(handler=handle, topic=""),
        f"MessageBusHandlerConfig.topic: {_OF_TOPICS}",
    ),
    "handler of no topics": (lambda: handler(handler=handle, topic=[]), f"MessageBusHandlerConfig.topic: {_OF_TOPICS}"),
    "handler of a list with an empty topic": (
        lambda: handler(handler=handle, topic=["posts", ""]),
        f"MessageBusHandlerConfig.topic: {_OF_TOPICS}",
    ),
    "misspelt field of a handler": (
        lambda: handler(handler=handle, topics="posts"),
        "MessageBusHandlerConfig.topics: unknown field; did you mean 'topic'?",
    ),
    "topic that publishes an abstract event": (
        lambda: topic(publishes=[Abstract]),
        'MessageBusTopicConfig.publishes: Abstract is abstract: declare `class Abstract(TotoEvent, type="...")`',
    ),
    "topic that publishes another class": (
        lambda: topic(publishes=[dict]),
        "MessageBusTopicConfig.publishes: dict is not a subclass of TotoEvent",
    ),
    "topic that publishes an event by name": (
        lambda: topic(publishes=["postCreated"]),
        "MessageBusTopicConfig.publishes: a value of the class str is not a subclass of TotoEvent",
    ),
    "topic that publishes one event": (
        lambda: topic(publishes=PostCreated),
        "MessageBusTopicConfig.publishes: Input should be a valid list",
    ),
    "topic that publishes an event twice": (
        lambda: topic(publishes=[PostCreated, PostCreated]),
        "MessageBusTopicConfig.publishes: two events 'postCreated version 1'",
    ),
    "topic without a name": (
        lambda: topic(logical_name=""),
        "MessageBusTopicConfig.logical_name: String should have at least 1 character",
    ),
    "misspelt field of a topic": (
        lambda: topic(publish=[]),
        "MessageBusTopicConfig.publish: unknown field; did you mean 'publishes'?",
    ),
    "topic twice": (lambda: bus(topics=[topic(), topic()]), "MessageBusConfig.topics: two topics 'posts'"),
    "handler twice": (
        lambda: bus(topics=[topic()], message_handlers=[handler(handler=handle), handler(handler=handle)]),
        f"MessageBusConfig.message_handlers: two handlers '{__name__}.handle'",
    ),
    "handler of an undeclared topic": (
        lambda: bus(topics=[topic()], message_handlers=[handler(handler=handle, topic="orders")]),
        "MessageBusConfig.configuration: handle names the undeclared topic 'orders': declared are 'posts'",
    ),
    "handler of a topic that is only published to": (
        lambda: bus(topics=[topic(subscribe=False)], message_handlers=[handler(handler_class=Handler, topic="posts")]),
        "MessageBusConfig.configuration: Handler names the topic 'posts', which has subscribe=False",
    ),
}


@each(WRONG)
def test_wrong_declaration_is_refused_with_the_field_and_the_rule(declare: Callable[[], object], message: str) -> None:
    assert error_of(declare) == message
