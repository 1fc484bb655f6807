"""The messaging side of a declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from totoms.declaration.base import Declaration, refuse_duplicates
from totoms.messages.events import TotoEvent, check_event_class
from totoms.messages.function_handler import FunctionHandler, function_handler_of
from totoms.messages.handler import TotoMessageHandler, check_handler_class
from totoms.messages.subscription import DeliveryMode, RetryPolicy
from totoms.messages.upcast import check_upcasts
from totoms.threads import MOST_THREADS


class MessageBusTopicConfig(Declaration):
    """A topic that the service publishes to, or subscribes to if a handler takes its messages.

    Attributes:
        logical_name: The name in code.
        secret: The name of the secret with the provider's identifier.
        subscription: The name of the service's subscription; by default ``{service_name}-{logical_name}``.
        ordered: Whether messages with the same ordering key are handled in order.
        subscribe: False to only publish: handlers without a topic do not subscribe to it.
        publishes: The events that the service may publish to it. Others are refused before anything is sent, and so is
            a `TotoMessage` whose data is not valid for its event. By default, everything may be published.
    """

    logical_name: Annotated[str, Field(min_length=1)]
    secret: Annotated[str, Field(min_length=1)]
    subscription: Annotated[str, Field(min_length=1)] | None = None
    ordered: bool = False
    subscribe: bool = True
    publishes: list[type[TotoEvent]] | None = None

    @pydantic.field_validator("publishes", mode="before")
    @classmethod
    def _are_events(cls, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else ():
            check_event_class(one)
        return value

    @pydantic.field_validator("publishes")
    @classmethod
    def _distinct_events(cls, value: list[type[TotoEvent]] | None) -> list[type[TotoEvent]] | None:
        refuse_duplicates("event", [f"{one.__toto_type__} version {one.__toto_version__}" for one in value or ()])
        return value


class MessageBusHandlerConfig(Declaration):
    """A message handler: exactly one of `handler_class` and `handler`.

    Attributes:
        handler_class: A subclass of `TotoMessageHandler`, instantiated once with (config, message_bus, environment).
        topic: The logical name of its topic, or a list of them. By default, it takes messages of every topic without
            ``subscribe=False`` for which there is no handler of that topic.
        handler: A function decorated with `toto_handler`.
    """

    handler_class: type[TotoMessageHandler] | None = None
    topic: str | list[str] | None = None
    handler: Callable[..., Any] | None = None

    @property
    def function(self) -> FunctionHandler | None:
        """The decorated function, as the router needs it; None for a class."""
        return function_handler_of(self.handler)

    @property
    def name(self) -> str:
        """The name of the class or function."""
        return getattr(self.handler_class or self.handler, "__name__", "")

    @property
    def topics(self) -> list[str]:
        """The topics it names; empty for every topic."""
        return [self.topic] if isinstance(self.topic, str) else list(self.topic or ())

    @pydantic.field_validator("topic")
    @classmethod
    def _names_topics(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and (not value or (isinstance(value, list) and not all(value))):
            raise ValueError("must be the logical name of a topic, or a list of them; leave it out for every topic")
        return value

    @pydantic.field_validator("handler_class", mode="before")
    @classmethod
    def _is_handler(cls, value: Any) -> Any:
        if value is None:
            return value
        if function_handler_of(value) is not None:
            raise ValueError(f"{value.__name__} is a function: write handler={value.__name__}")
        if not (inspect.isclass(value) and issubclass(value, TotoMessageHandler)):
            raise ValueError("must be a subclass of TotoMessageHandler")
        check_handler_class(value)
        return value

    @pydantic.field_validator("handler", mode="before")
    @classmethod
    def _is_decorated(cls, value: Any) -> Any:
        if value is None:
            return value
        if inspect.isclass(value):
            raise ValueError(f"{value.__name__} is a class: write handler_class={value.__name__}")
        function = function_handler_of(value)
        if function is None:
            raise ValueError("must be a function decorated with @toto_handler")
        if function.event is not None:
            check_upcasts(function.event)
        return value

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> MessageBusHandlerConfig:
        if (self.handler_class is None) == (self.handler is None):
            raise ValueError("needs exactly one of handler_class and handler")
        return self


class MessageBusConfig(Declaration):
    """The messaging side of a service.

    Attributes:
        topics: The topics that the service publishes or subscribes to.
        message_handlers: The message handlers.
        delivery: ``"push"`` or ``"pull"``; by default, the subscriptions that exist decide (docs/messages.md).
        create_subscriptions: Whether missing subscriptions are created at start; if not, no infrastructure is changed.
        max_concurrency: How many messages are handled at the same time, for each pull subscription and for all pushes.
        retry: Attempts and backoff before a message is dead-lettered.
        handler_timeout: Seconds after which a handler is cancelled and the message is delivered again.
        max_threads: How many handlers written as ``def`` may run at the same time; by default all.
        lease: The length of leases in seconds, renewed while a message is handled; by default the backend's.
        dead_letters: Whether a push subscription must have a dead-letter store; with ``False`` the service starts
            without one.
        away_is_unready: Whether ``/ready`` answers 503 while a pulled subscription cannot receive.
        vanished_subscriptions: What happens if a pull subscription is deleted while the service runs: ``"create"``
            creates it again, ``"exit"`` ends the process. By default, it is created again if `create_subscriptions` is
            on; otherwise the service waits until it exists.
    """

    topics: list[MessageBusTopicConfig] = Field(default_factory=list)
    message_handlers: list[MessageBusHandlerConfig] = Field(default_factory=list)
    delivery: DeliveryMode | None = None
    create_subscriptions: bool = True
    max_concurrency: Annotated[int, Field(gt=0, le=10_000)] = 16
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    handler_timeout: Annotated[float, Field(gt=0)] = 3600.0
    max_threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
    lease: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    dead_letters: bool = True
    away_is_unready: bool = False
    vanished_subscriptions: Literal["create", "exit"] | None = None

    @pydantic.field_validator("topics", "message_handlers", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @pydantic.field_validator("topics")
    @classmethod
    def _distinct_topics(cls, value: list[MessageBusTopicConfig]) -> list[MessageBusTopicConfig]:
        refuse_duplicates("topic", [topic.logical_name for topic in value])
        return value

    @pydantic.field_validator("message_handlers")
    @classmethod
    def _distinct_handlers(cls, value: list[MessageBusHandlerConfig]) -> list[MessageBusHandlerConfig]:
        given = [handler.handler_class or handler.handler for handler in value]
        refuse_duplicates("handler", [f"{one.__module__}.{one.__qualname__}" for one in given if one is not None])
        return value

    @pydantic.model_validator(mode="after")
    def _handlers_name_known_topics(self) -> MessageBusConfig:
        subscribed = {topic.logical_name: topic.subscribe for topic in self.topics}
        for handler in self.message_handlers:
            for name in handler.topics:
                if name not in subscribed:
                    known = ", ".join(map(repr, subscribed)) or "none"
                    raise ValueError(f"{handler.name} names the undeclared topic {name!r}: declared are {known}")
                if not subscribed[name]:
                    raise ValueError(f"{handler.name} names the topic {name!r}, which has subscribe=False")
        return self

    @pydantic.model_validator(mode="after")
    def _may_create(self) -> MessageBusConfig:
        if self.vanished_subscriptions == "create" and not self.create_subscriptions:
            raise ValueError('vanished_subscriptions="create" needs create_subscriptions=True')
        return self

    @property
    def heard(self) -> set[str]:
        """The logical names of the topics with a handler."""
        named = {name for handler in self.message_handlers for name in handler.topics}
        if any(not handler.topics for handler in self.message_handlers):
            named |= {topic.logical_name for topic in self.topics if topic.subscribe}
        return named
