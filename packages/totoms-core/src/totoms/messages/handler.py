"""Message handlers: the base class, and what the router needs of any of them."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic

from pydantic import BaseModel

from totoms.environment import TotoEnvironment
from totoms.errors import ConfigurationError
from totoms.execution import ConfigT
from totoms.logging.logger import TotoLogger
from totoms.messages.bus import MessageBus
from totoms.messages.events import TotoEvent, check_event_class
from totoms.messages.message import DataT, ProcessingResponse, TotoMessage
from totoms.messages.signatures import promises_none
from totoms.messages.upcast import check_upcasts

_NO_TYPE: Final = "names no event: write TotoMessageHandler[PostCreated], or implement get_handled_message_type"


class TotoMessageHandler(ABC, Generic[DataT, ConfigT]):
    """Handles messages of one type. A service creates one instance at start and uses it for concurrent messages.

    ``TotoMessageHandler[PostCreated]`` handles the messages of an event, and ``message.data`` is a `PostCreated`.
    ``TotoMessageHandler[PostCreated, BlogConfig]`` gives `config` its type as well. A handler of untyped messages
    overrides :meth:`get_handled_message_type`.

    Attributes:
        config: The service's loaded configuration.
        message_bus: The bus, to publish further messages.
        environment: Where the service runs.
        logger: The service's logger: ``self.logger.log(message.cid, "...")``.
    """

    def __init__(self, config: ConfigT, message_bus: MessageBus, environment: TotoEnvironment) -> None:
        self.config = config
        self.message_bus = message_bus
        self.environment = environment
        self.logger = TotoLogger.get_instance()

    def get_handled_message_type(self) -> str:
        """Return the message type that this handler processes; by default that of its event.

        Raises:
            ConfigurationError: The class names no event, and does not override this method.
        """
        event = event_of(type(self))
        if event is None:
            raise ConfigurationError(f"{type(self).__name__} {_NO_TYPE}")
        return event.__toto_type__

    @abstractmethod
    async def process_message(self, message: TotoMessage[DataT]) -> ProcessingResponse | None:
        """Process one message. A plain ``def`` runs in a worker thread.

        Returns:
            SUCCESS or IGNORED to settle the message, FAILED to have it delivered again with backoff. None means success
            if the method is annotated ``-> None``, and has failed otherwise.

        Raises:
            NonRetryableError: Dead-letter the message at once, because it will never succeed.
            Exception: The same as FAILED.
        """


@dataclass(frozen=True, slots=True)
class BoundHandler:
    """A handler as the router runs it.

    Attributes:
        name: Its name, for errors.
        message_type: The message type.
        event: The class of the data; None to leave the data as it is.
        process: The function, with or without ``async``.
        none_succeeds: Whether None means success.
    """

    name: str
    message_type: str
    event: type[TotoEvent] | None
    process: Callable[[TotoMessage[Any]], Any]
    none_succeeds: bool


def bind(handler: TotoMessageHandler[Any, Any]) -> BoundHandler:
    """Return an instance of a handler class as the router runs it.

    Raises:
        ConfigurationError: Its message type is not a non-empty string, or not that of its event.
    """
    kind = type(handler)
    message_type = handler.get_handled_message_type()
    if not isinstance(message_type, str) or not message_type:
        raise ConfigurationError(f"{kind.__name__}.get_handled_message_type() must return a non-empty string.")
    event = event_of(kind)
    if event is not None and message_type != event.__toto_type__:
        raise ConfigurationError(
            f"{kind.__name__} handles {event.__name__}, whose type is {event.__toto_type__!r}, but its "
            f"get_handled_message_type() returns {message_type!r}."
        )
    return BoundHandler(
        kind.__name__, message_type, event, handler.process_message, promises_none(handler.process_message)
    )


def check_handler_class(kind: type[TotoMessageHandler[Any, Any]]) -> None:
    """Check a handler class when it is declared.

    Raises:
        ValueError: It is abstract, names no message type, or its event cannot be handled.
    """
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise ValueError(f"{kind.__name__} does not implement {', '.join(missing)}")
    data = _data_of(kind)
    if isinstance(data, str | typing.ForwardRef):
        raise ValueError(f"{kind.__name__} names its event as text: write the class itself")
    if isinstance(data, type) and issubclass(data, BaseModel):
        check_upcasts(check_event_class(data))
    elif kind.get_handled_message_type is TotoMessageHandler.get_handled_message_type:
        raise ValueError(f"{kind.__name__} {_NO_TYPE}")


def event_of(kind: type[Any]) -> type[TotoEvent] | None:
    """Return the event that a handler class names in brackets; None if it handles untyped data."""
    data = _data_of(kind)
    return data if isinstance(data, type) and issubclass(data, TotoEvent) else None


def _data_of(kind: type[Any]) -> Any:
    """Return what a handler class, or a base of it, has in brackets for `DataT`; None if there is nothing."""
    arguments = _arguments(kind)
    return arguments[0] if arguments else None


def _arguments(kind: type[Any]) -> tuple[Any, ...]:
    for base in vars(kind).get("__orig_bases__", kind.__bases__):
        origin = typing.get_origin(base) or base
        if origin is TotoMessageHandler:
            return typing.get_args(base)
        if isinstance(origin, type) and issubclass(origin, TotoMessageHandler):
            given = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(base), strict=False))
            return tuple(given.get(one, one) for one in _arguments(origin))
    return ()
