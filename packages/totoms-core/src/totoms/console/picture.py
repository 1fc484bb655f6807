"""Draw the services and topics as SVG: publishers, topics and handlers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from totoms.console.model import Connection

_WIDTH: Final = 190
_HEIGHT: Final = 40
_GAP: Final = 26
_COLUMNS: Final = (10, 330, 650)
_LONGEST: Final = 24


def picture_of(connections: Sequence[Connection], services: Sequence[str]) -> str:
    """Return an SVG image; "" if there is nothing to draw."""
    publishers = _distinct([one.service for one in connections if one.publishes])
    topics = _distinct([one.topic for one in connections])
    handlers = _distinct([one.service for one in connections if not one.publishes])
    alone = [name for name in services if name not in publishers and name not in handlers]
    columns = [publishers + alone, topics, handlers]
    rows = max(map(len, columns), default=0)
    if not rows:
        return ""
    height = rows * (_HEIGHT + _GAP) + 10
    places = [
        {name: (_COLUMNS[number], _top(row, len(column), rows)) for row, name in enumerate(column)}
        for number, column in enumerate(columns)
    ]
    parts = [
        f'<svg viewBox="0 0 {_COLUMNS[2] + _WIDTH + 10} {height}" role="img" '
        f'aria-label="{escape(_words(connections))}" class="picture">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" class="tip"/></marker></defs>',
    ]
    for (service, topic, publishes), events in _edges(connections).items():
        start, end = (places[0][service], places[1][topic]) if publishes else (places[1][topic], places[2][service])
        parts.append(_line(start, end, events))
    for number, column in enumerate(places):
        for name, (left, top) in column.items():
            parts.append(_box(name, left, top, is_topic=number == 1))
    return "".join(parts) + "</svg>"


def _distinct(names: Sequence[str]) -> list[str]:
    return sorted(set(names))


def _top(row: int, number: int, rows: int) -> int:
    spare = (rows - number) * (_HEIGHT + _GAP) // 2
    return 5 + spare + row * (_HEIGHT + _GAP)


def _edges(connections: Sequence[Connection]) -> dict[tuple[str, str, bool], list[str]]:
    found: dict[tuple[str, str, bool], list[str]] = {}
    for one in connections:
        found.setdefault((one.service, one.topic, one.publishes), []).append(one.event)
    return found


def _line(start: tuple[int, int], end: tuple[int, int], events: Sequence[str]) -> str:
    left, right = start[0] + _WIDTH, end[0] - 2
    top, bottom = start[1] + _HEIGHT // 2, end[1] + _HEIGHT // 2
    middle = (left + right) // 2
    text = _short(events[0] + (f" +{len(events) - 1}" if len(events) > 1 else ""), 18)
    return (
        f'<path d="M{left} {top} C{middle} {top} {middle} {bottom} {right} {bottom}" class="edge" '
        f'marker-end="url(#tip)"><title>{escape(", ".join(events))}</title></path>'
        f'<text x="{middle}" y="{(top + bottom) // 2 - 6}" class="event">{escape(text)}</text>'
    )


def _box(name: str, left: int, top: int, *, is_topic: bool) -> str:
    radius = _HEIGHT // 2 if is_topic else 6
    kind = "topic" if is_topic else "service"
    return (
        f'<g class="{kind}"><title>{escape(name)}</title>'
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="{radius}"/>'
        f'<text x="{left + _WIDTH // 2}" y="{top + _HEIGHT // 2 + 5}">{escape(_short(name, _LONGEST))}</text></g>'
    )


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _words(connections: Sequence[Connection]) -> str:
    return "; ".join(
        f"{one.service} {'publishes' if one.publishes else 'handles'} {one.event} on {one.topic}" for one in connections
    )
