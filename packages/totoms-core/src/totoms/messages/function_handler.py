"""`@toto_handler`: it makes a function a message handler."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, overload

from totoms.errors import ConfigurationError
from totoms.execution import ExecutionContext
from totoms.messages.events import TotoEvent, check_event_class
from totoms.messages.handler import BoundHandler
from totoms.messages.message import ProcessingResponse, TotoMessage
from totoms.messages.signatures import resolve

_MARK: Final = "__toto_handler__"
_FORM: Final = "async def f(message: TotoMessage[PostCreated], exec_context: ExecutionContext) -> None"
_EMPTY: Final = inspect.Parameter.empty
_PLACES: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Handler = typing.TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True)
class FunctionHandler:
    """A function decorated with `toto_handler`.

    Attributes:
        function: The function.
        name: Its qualified name, for errors.
        message_type: The message type.
        event: The class of the data; None for untyped data.
        takes_context: Whether the function has a parameter for the `ExecutionContext`.
        none_succeeds: Whether None means success: not if the function promises a `ProcessingResponse`.
    """

    function: Callable[..., Any]
    name: str
    message_type: str
    event: type[TotoEvent] | None
    takes_context: bool
    none_succeeds: bool

    def bind(self, make_context: Callable[[], ExecutionContext]) -> BoundHandler:
        """Return the handler as the router runs it.

        Args:
            make_context: Returns the context of the current message.
        """
        return BoundHandler(self.name, self.message_type, self.event, self._process(make_context), self.none_succeeds)

    def _process(self, make_context: Callable[[], ExecutionContext]) -> Callable[[TotoMessage[Any]], Any]:
        function = self.function
        if not self.takes_context:
            return function
        if inspect.iscoroutinefunction(function):

            async def process(message: TotoMessage[Any]) -> Any:
                return await function(message, make_context())

            return process
        return lambda message: function(message, make_context())


@overload
def toto_handler(function: Handler, /) -> Handler: ...


@overload
def toto_handler(*, type: str) -> Callable[[Handler], Handler]: ...


def toto_handler(function: Any = None, /, *, type: Any = None) -> Any:
    """Make a function a message handler, for ``MessageBusHandlerConfig(handler=...)``.

    ::

        @toto_handler
        async def add_to_digest(message: TotoMessage[PostCreated], exec_context: ExecutionContext[BlogConfig]) -> None:
            ...

    The function may leave out the context, and stays directly callable. A plain ``def`` runs in a worker thread. What
    it returns and raises means the same as for :meth:`TotoMessageHandler.process_message`, but None is success unless
    it is annotated to return a `ProcessingResponse`.

    Args:
        function: The function.
        type: The message type, for untyped data: ``@toto_handler(type="postCreated")``.

    Raises:
        ConfigurationError: The function has other parameters, or names neither an event nor a type.
    """
    frame = sys._getframe(1)
    names = frame.f_locals if frame.f_locals is not frame.f_globals else {}
    if function is None:
        return lambda decorated: _declare(decorated, type, names)
    return _declare(function, type, names)


def function_handler_of(function: object) -> FunctionHandler | None:
    """Return what `toto_handler` found out about a function; None for any other object."""
    found = getattr(function, _MARK, None)
    return found if isinstance(found, FunctionHandler) else None


def _declare(function: Any, given: Any, names: Mapping[str, Any]) -> Any:
    if not inspect.isfunction(function):
        what = "the class" if inspect.isclass(function) else "an object of the class"
        kind = function.__name__ if inspect.isclass(function) else type(function).__name__
        raise ConfigurationError(f"@toto_handler takes a function, not {what} {kind}.")
    name = function.__qualname__
    takes_context = _check_parameters(function, names)
    event, message_type = _subject(function, given, names)
    returned = resolve(inspect.signature(function).return_annotation, function, names)
    none_succeeds = returned not in (ProcessingResponse, ProcessingResponse.__name__)
    setattr(function, _MARK, FunctionHandler(function, name, message_type, event, takes_context, none_succeeds))
    return function


def _check_parameters(function: Callable[..., Any], names: Mapping[str, Any]) -> bool:
    """Return whether the function takes an `ExecutionContext`."""
    parameters = list(inspect.signature(function).parameters.values())
    kinds = [_class_of(resolve(one.annotation, function, names)) for one in parameters]
    name = function.__qualname__
    for parameter, kind in zip(parameters, kinds, strict=True):
        if isinstance(kind, str):
            raise ConfigurationError(
                f"{name}: the annotation {kind!r} of {parameter.name!r} is unknown when the function is decorated."
            )
    if not parameters or kinds[0] not in (TotoMessage, _EMPTY) or parameters[0].kind not in _PLACES:
        raise ConfigurationError(f"The first parameter of {name} must be the message: {_FORM}.")
    for parameter, kind in zip(parameters[1:], kinds[1:], strict=True):
        is_context = kind is ExecutionContext or (kind is _EMPTY and parameter.name == "exec_context")
        if not is_context or parameter is not parameters[1] or parameter.kind not in _PLACES:
            raise ConfigurationError(
                f"{name} has the parameter {parameter.name!r}: it takes only the message and the ExecutionContext."
            )
    return len(parameters) == 2


def _subject(function: Callable[..., Any], given: Any, names: Mapping[str, Any]) -> tuple[type[TotoEvent] | None, str]:
    """Return the event and the message type that the function handles."""
    name = function.__qualname__
    if given is not None and (not isinstance(given, str) or not given):
        raise ConfigurationError(f"@toto_handler of {name}: type must be a non-empty string.")
    parameter = next(iter(inspect.signature(function).parameters.values()))
    (data,) = typing.get_args(resolve(parameter.annotation, function, names)) or (None,)
    if isinstance(data, str | typing.ForwardRef):
        raise ConfigurationError(
            f"{name}: the annotation {parameter.annotation!r} is unknown when the function is decorated."
        )
    if inspect.isclass(data) and issubclass(data, TotoEvent):
        try:
            event = check_event_class(data)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}.") from None
        if given is not None and given != event.__toto_type__:
            raise ConfigurationError(
                f"{name} handles {event.__name__}, whose type is {event.__toto_type__!r}, not {given!r}."
            )
        return event, event.__toto_type__
    if given is None:
        raise ConfigurationError(
            f'{name} names no event: write `message: TotoMessage[PostCreated]`, or @toto_handler(type="postCreated").'
        )
    return None, given


def _class_of(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation
