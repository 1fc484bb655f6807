"""Versions of events: read the data of an older version as the event of today."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

import orjson

from totoms.errors import ConfigurationError
from totoms.messages.events import EventT, InvalidEvent, TotoEvent, UnknownVersion, check_event_class, to_json, validate

Upcast = TypeVar("Upcast", bound=Callable[[dict[str, Any]], dict[str, Any]])

_MOST_DIGITS: Final = 10


def upcast(event: type[TotoEvent], *, from_version: int) -> Callable[[Upcast], Upcast]:
    """Declare a function that turns the data of one version of an event into that of the next.

    ::

        @upcast(PostCreated, from_version=1)
        def with_title(data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "title": data["slug"]}

    It runs before the data is validated, and must depend on nothing but its argument. A message of an older version
    passes through all upcasts from its version on. If one raises, the handler has failed.

    Args:
        event: The class of today's version.
        from_version: The version that the function takes.

    Raises:
        ConfigurationError: `event` has no type, `from_version` is not lower than its version, there is an upcast from
            this version already, or the function is not a plain ``def``.
    """
    try:
        check_event_class(event)
    except ValueError as error:
        raise ConfigurationError(f"@upcast: {error}.") from None
    newest = event.__toto_version__
    if not isinstance(from_version, int) or isinstance(from_version, bool) or not 1 <= from_version < newest:
        raise ConfigurationError(
            f"@upcast({event.__name__}): from_version must be lower than the version {newest} of the event, and 1 or "
            f"more, not {from_version!r:.20}."
        )

    def declare(function: Upcast) -> Upcast:
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"@upcast({event.__name__}, from_version={from_version}) takes a plain `def`.")
        if from_version in event.__toto_upcasts__:
            raise ConfigurationError(f"{event.__name__} has two upcasts from version {from_version}.")
        event.__toto_upcasts__[from_version] = function
        return function

    return declare


def check_upcasts(event: type[TotoEvent]) -> None:
    """Check that the upcasts of an event lead to its version.

    Raises:
        ValueError: There is a gap.
    """
    versions = event.__toto_upcasts__
    missing = [
        number
        for number in range(min(versions, default=0) or event.__toto_version__, event.__toto_version__)
        if number not in versions
    ]
    if missing:
        raise ValueError(f"{event.__name__} needs an upcast from version {', '.join(map(str, missing))}")


def understood_versions(event: type[TotoEvent]) -> list[int]:
    """Return the versions that the event class can read, in ascending order."""
    newest = event.__toto_version__
    oldest = newest
    while oldest - 1 in event.__toto_upcasts__:
        oldest -= 1
    return list(range(oldest, newest + 1))


def read_event(event: type[EventT], data: Any, version: str | None, *, vouched: bool) -> EventT:
    """Return the data of a message as an event, after its upcasts.

    Args:
        event: The class.
        data: Decoded JSON.
        version: The attribute ``schemaVersion``; None if it is absent, which means 1.
        vouched: Whether the broker vouches for the attribute. If not, it is used only if the data is valid as that
            version: anyone may have written it.

    Raises:
        InvalidEvent: The data is not valid.
        UnknownVersion: The version is newer than the class, or no upcast starts at it.
        Exception: An upcast raised it.
    """
    if version is None or vouched:
        return _read(event, data, "1" if version is None else version)
    body = to_json(data)
    try:
        return _read(event, data, version)
    except Exception:
        return _read(event, orjson.loads(body), "1")


def _read(event: type[EventT], data: Any, version: str) -> EventT:
    newest = event.__toto_version__
    first = int(version) if version.isascii() and version.isdigit() and len(version) < _MOST_DIGITS else 0
    if not 1 <= first <= newest:
        raise UnknownVersion(f"{event.__name__} is known up to version {newest}, the message has {version!r:.20}.")
    for number in range(first, newest):
        function = event.__toto_upcasts__.get(number)
        if function is None:
            raise UnknownVersion(f"{event.__name__} has no upcast from version {number}.")
        if not isinstance(data, dict):
            raise InvalidEvent(f"{event.__name__}: data is not an object, but version {number} must be upcast.")
        data = function(data)
        if not isinstance(data, dict):
            raise TypeError(f"The upcast of {event.__name__} from version {number} returned no dict.")
    return validate(event, data)
