"""Events: `TotoEvent`, the typed data of a message, and how it is read from the wire.

Only the fields of an event travel as ``data``. Its type is the message's `type`, and its version is the attribute
``schemaVersion`` of the broker's message; a message without one has version 1.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import orjson
import pydantic
from pydantic import BaseModel

from totoms.errors import ConfigurationError, InvalidArgument, TotoError
from totoms.strict_json import check_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import ConfigDict
    from typing_extensions import Unpack

VERSION_ATTRIBUTE: Final = "schemaVersion"
"""Attribute with the version of an event; absent means 1."""

_MOST_PATHS: Final = 20

EventT = TypeVar("EventT", bound="TotoEvent")


class InvalidEvent(TotoError):
    """Data is not valid for the class of the event. The message names fields, never values."""


class UnknownVersion(TotoError):
    """The version of an event is newer than its class, or no upcast starts at it."""


class TotoEvent(BaseModel):
    """The `data` of a message as a pydantic model, with a type and a version.

    ::

        class PostCreated(TotoEvent, type="postCreated", version=2):
            slug: str
            title: str

    A subclass without `type` is abstract: other events can inherit from it, but it cannot be published or handled. A
    parametrised generic has the type and version of its origin.

    Args:
        type: The message type, as a keyword of the class.
        version: The version, 1 by default, as a keyword of the class; raise it with a change that consumers would not
            understand, and declare an `upcast` from each earlier version.

    Raises:
        ConfigurationError: When the class is created: `type` or `version` is invalid.
    """

    __toto_type__: ClassVar[str] = ""
    __toto_version__: ClassVar[int] = 1
    __toto_upcasts__: ClassVar[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}

    if TYPE_CHECKING:

        def __init_subclass__(cls, *, type: str = ..., version: int = ..., **kwargs: Unpack[ConfigDict]) -> None: ...

    else:

        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: Any = None, version: Any = None, **kwargs: Any) -> None:
        """Keep the keywords of the class. Unlike ``__init_subclass__``, this knows of which generic it is made."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__pydantic_generic_metadata__["origin"] is not None:
            return
        if type is None and version is not None:
            raise ConfigurationError(f"{cls.__name__} has a version, so it needs a type.")
        if type is not None and (not isinstance(type, str) or not type.strip()):
            raise ConfigurationError(f"{cls.__name__}: type must be a non-empty string.")
        if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 1):
            raise ConfigurationError(f"{cls.__name__}: version must be an integer of 1 or more.")
        cls.__toto_type__ = type or ""
        cls.__toto_version__ = version or 1
        cls.__toto_upcasts__ = {}


def type_of(event: TotoEvent, given: object = "") -> str:
    """Return the message type of an event.

    Args:
        event: The event.
        given: The type that the message has already, if any.

    Raises:
        InvalidArgument: The event's class is abstract, or the message has another type.
    """
    kind = type(event)
    if not kind.__toto_type__:
        raise InvalidArgument(
            f'{kind.__name__} is abstract: declare `class {kind.__name__}(TotoEvent, type="...")` to publish it.'
        )
    if given and given != kind.__toto_type__:
        raise InvalidArgument(f"A {kind.__name__} has the type {kind.__toto_type__!r}, not {given!r:.100}.")
    return kind.__toto_type__


def check_event_class(value: object) -> type[TotoEvent]:
    """Return `value` if it is a class of events that can be published and handled. Raises ValueError if not."""
    name = value.__name__ if isinstance(value, type) else type(value).__name__
    if not isinstance(value, type) or not issubclass(value, TotoEvent):
        kind = "" if isinstance(value, type) else "a value of the class "
        raise ValueError(f"{kind}{name} is not a subclass of TotoEvent")
    if not value.__toto_type__:
        raise ValueError(f'{name} is abstract: declare `class {name}(TotoEvent, type="...")`')
    return value


def validate(event: type[EventT], data: Any) -> EventT:
    """Return decoded JSON as an event.

    It is validated as JSON, so that strict models and those with base64 read what they have written.

    Raises:
        InvalidEvent: It is not valid.
    """
    body = to_json(data)
    try:
        made = event.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise InvalidEvent(f"{event.__name__}: {_paths(error)}") from None
    if _has_floats(event):  # pydantic reads the text "NaN" as a float
        try:
            check_finite(made)
        except ValueError:
            raise InvalidEvent(f"{event.__name__}: NaN or infinity") from None
    return made


@functools.cache
def _has_floats(event: type[TotoEvent]) -> bool:
    return "'float'" in repr(event.__pydantic_core_schema__)


def to_json(data: Any) -> bytes:
    """Encode decoded JSON again."""
    try:
        return orjson.dumps(data)
    except TypeError:  # an integer over 64 bits
        return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _paths(error: pydantic.ValidationError) -> str:
    # The path and the rule of each problem. Texts of validators may quote a value.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    found = [f"{'.'.join(map(str, one['loc'])) or 'data'} ({one['type']})" for one in problems[:_MOST_PATHS]]
    more = len(problems) - len(found)
    return ", ".join(found) + (f" and {more} more" if more > 0 else "")
