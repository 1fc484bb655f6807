"""Keep the newest messages, spans and log lines of all services in bounded memory."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final, Generic, TypeVar

from totoms.console.views import Handling, LogLine, Message, Service, SpanView

MOST_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of messages, and the same of spans and of log lines, as JSON."""
MOST_ENTRIES: Final = 5000
MOST_BODY: Final = 16 * 1024
"""The most characters of a message's body, and of any other text."""
MOST_HANDLINGS: Final = 50
MOST_SERVICES: Final = 50

_T = TypeVar("_T")


class Bounded(Generic[_T]):
    """Entries by key. The oldest are dropped when there are too many or when they are too large."""

    def __init__(self, most: int = MOST_ENTRIES, most_bytes: int = MOST_BYTES) -> None:
        self._entries: OrderedDict[str, tuple[_T, int]] = OrderedDict()
        self._most = most
        self._most_bytes = most_bytes
        self.bytes = 0

    def get(self, key: str) -> _T | None:
        """Return an entry."""
        found = self._entries.get(key)
        return found[0] if found else None

    def put(self, key: str, entry: _T, size: int) -> None:
        """Set an entry. `size` is about how many bytes it has."""
        old = self._entries.get(key)
        self.bytes += size - (old[1] if old else 0)
        self._entries[key] = (entry, size)
        while len(self._entries) > self._most or (self.bytes > self._most_bytes and len(self._entries) > 1):
            _, (_, freed) = self._entries.popitem(last=False)
            self.bytes -= freed

    def newest(self) -> Iterator[_T]:
        """Yield the entries, the newest first."""
        for entry, _ in reversed(self._entries.values()):
            yield entry


class Recorder:
    """Records events. It is thread-safe.

    Args:
        changed: Called after each change, for what is shown live.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._changed = changed
        self._messages: Bounded[Message] = Bounded()
        self._spans: Bounded[SpanView] = Bounded()
        self._logs: Bounded[LogLine] = Bounded()
        self._lines = 0
        self._services: Bounded[Service] = Bounded(MOST_SERVICES)

    def record(self, event: dict[str, Any]) -> None:
        """Record an event: ``kind`` says which of the methods below it is for.

        Raises:
            ValueError: It is not one.
        """
        try:
            kind, value = event["kind"], _cut(event["value"])
            size = len(json.dumps(value))
            with self._lock:
                if kind == "service":
                    self._services.put(value["name"], Service(**value), size)
                elif kind == "message":
                    self._message(value, size)
                elif kind == "handled":
                    self._handled(value["id"], value["message"], Handling(**value["handling"]), size)
                elif kind == "span":
                    self._spans.put(f"{value['trace']}-{value['id']}", SpanView(**value), size)
                elif kind == "log":
                    self._lines += 1
                    self._logs.put(str(self._lines), LogLine(**value), size)
                else:
                    raise ValueError(f"There are no events of the kind {kind!r:.40}.")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"An event is not as expected: {error!r:.200}.") from None
        self._changed()

    def _message(self, value: dict[str, Any], size: int) -> None:
        known = self._messages.get(value["id"])
        seen = Message(**value)
        if known is not None:
            seen = Message(**{**asdict(seen), "at": known.at or seen.at, "handlings": known.handlings})
        self._messages.put(seen.id, seen, size + 200 * len(seen.handlings))

    def _handled(self, name: str, about: dict[str, Any], handling: Handling, size: int) -> None:
        message = self._messages.get(name) or Message(id=name)
        for field, value in about.items():
            if value and not getattr(message, field):
                setattr(message, field, value)
        message.handlings = [*message.handlings, handling][-MOST_HANDLINGS:]
        self._messages.put(name, message, size + len(message.body) + 200 * len(message.handlings))

    # --- read ---

    def services(self) -> list[Service]:
        """Return the services, by name."""
        with self._lock:
            return sorted(self._services.newest(), key=lambda one: one.name)

    def messages(self, limit: int = 100, *, topic: str = "", cid: str = "", text: str = "") -> list[Message]:
        """Return the newest messages first."""
        with self._lock:
            return _first(
                self._messages.newest(),
                limit,
                lambda one: (
                    (not topic or one.topic == topic)
                    and (not cid or one.cid == cid)
                    and (not text or text in f"{one.type} {one.id} {one.body}")
                ),
            )

    def message(self, name: str) -> Message | None:
        """Return the message of an id."""
        with self._lock:
            return self._messages.get(name)

    def spans(self, trace: str) -> list[SpanView]:
        """Return the spans of a trace, in the order in which they began."""
        with self._lock:
            return sorted((one for one in self._spans.newest() if one.trace == trace), key=lambda one: one.begun)

    def logs(self, limit: int = 200, *, cid: str = "", level: str = "", service: str = "") -> list[LogLine]:
        """Return the newest lines first."""
        with self._lock:
            return _first(
                self._logs.newest(),
                limit,
                lambda one: (
                    (not cid or one.cid == cid)
                    and (not level or one.level == level)
                    and (not service or one.service == service)
                ),
            )

    @property
    def bytes(self) -> int:
        """About how many bytes are kept."""
        with self._lock:
            return self._messages.bytes + self._spans.bytes + self._logs.bytes + self._services.bytes


def _first(entries: Iterator[_T], limit: int, accept: Callable[[_T], bool]) -> list[_T]:
    found: list[_T] = []
    for entry in entries:
        if len(found) >= limit:
            break
        if accept(entry):
            found.append(entry)
    return found


def _cut(value: Any) -> Any:
    """Return a value whose texts are no longer than `MOST_BODY`."""
    if isinstance(value, str):
        return value if len(value) <= MOST_BODY else f"{value[:MOST_BODY]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {str(name): one if name == "manifest" else _cut(one) for name, one in value.items()}
    return [_cut(one) for one in value] if isinstance(value, list) else value
