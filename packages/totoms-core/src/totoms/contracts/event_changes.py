"""Compare two AsyncAPI documents: changes for the services that publish or handle the same events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from totoms.contracts.asyncapi import EVENT_VERSION, TYPE, UNDERSTOOD
from totoms.contracts.changes import Change
from totoms.contracts.comparison import Comparison, Direction
from totoms.contracts.shapes import resolve

_OTHERS: Final = {"receive": "services that publish", "send": "services that handle"}


@dataclass(frozen=True)
class _Message:
    type: str
    version: int | None
    understood: frozenset[int]
    data: Any
    document: Any


def event_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Yield the changes for other services between two AsyncAPI documents."""
    for direction in ("receive", "send"):
        before, after = _messages(old, direction), _messages(new, direction)
        for topic, kind in sorted(before.keys() | after.keys()):
            whom = f"{_OTHERS[direction]} {kind} on {topic}"
            first, second = before.get((topic, kind), []), after.get((topic, kind), [])
            if not second:
                text = "nothing handles it any more" if direction == "receive" else "it is not published any more"
                yield Change(True, whom, text)
            elif not first:
                yield Change(False, whom, f"it is new, {'and handled' if direction == 'receive' else 'and published'}")
            elif direction == "receive":
                yield from _received(first, second, whom)
            else:
                yield from _sent(first, second, whom)


def _messages(document: dict[str, Any], direction: str) -> dict[tuple[str, str], list[_Message]]:
    """Return the messages by topic and type."""
    found: dict[tuple[str, str], list[_Message]] = {}
    for operation in document.get("operations", {}).values():
        if operation.get("action") != direction:
            continue
        channel = resolve(operation.get("channel"), document)
        for reference in operation.get("messages", []):
            message = resolve(reference, document)
            data = message.get("payload", {}).get("properties", {}).get("data", {})
            one = _Message(
                str(message.get(TYPE, message.get("name", ""))),
                message.get(EVENT_VERSION),
                frozenset(message.get(UNDERSTOOD, ())),
                data,
                document,
            )
            found.setdefault((str(channel.get("address")), one.type), []).append(one)
    return found


def _received(old: list[_Message], new: list[_Message], whom: str) -> Iterator[Change]:
    understood = frozenset[int]().union(*(one.understood for one in new))
    for one in old:
        same = [other for other in new if other.version == one.version]
        if same:
            yield from _compare("receive", one, same[0], whom)
        elif one.version is not None and understood and one.version not in understood:
            yield Change(True, whom, f"version {one.version} is not understood any more")
    before = frozenset[int]().union(*(one.understood for one in old))
    current = {one.version for one in old}
    for version in sorted(before - understood - current if understood else ()):
        yield Change(True, whom, f"version {version} is not understood any more")
    for version in sorted(understood - before):
        yield Change(False, whom, f"version {version} is understood now")


def _sent(old: list[_Message], new: list[_Message], whom: str) -> Iterator[Change]:
    for one in old:
        same = [other for other in new if other.version == one.version]
        if same:
            yield from _compare("send", one, same[0], whom)
    versions = {one.version for one in old}
    for other in new:
        if other.version not in versions and other.version is not None:
            yield Change(False, whom, f"version {other.version} is published: they must understand it first")


def _compare(direction: Direction, old: _Message, new: _Message, whom: str) -> Iterator[Change]:
    version = f"version {new.version}: " if new.version is not None else ""
    for finding in Comparison(direction, old.document, new.document).compare(old.data, new.data):
        yield Change(True, whom, f"{version}{f'{finding.path} ' if finding.path else ''}{finding.text}")
