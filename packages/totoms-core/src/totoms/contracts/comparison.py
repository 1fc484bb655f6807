"""Find breaking differences between two schemas.

The schema of received data may only accept more values, and the schema of sent data may only allow fewer. Both are
checked in the same way: every value that is valid for one schema must be valid for the other.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from totoms.contracts.shapes import Shape, shapes_of, type_of

Direction = Literal["receive", "send"]
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")
_COUNTS: Final = ("minLength", "minItems", "minProperties", "minContains")
"""Lower bounds that have no effect if they are 0."""
_SIBLINGS: Final = {
    "minimum": "exclusiveMinimum",
    "exclusiveMinimum": "minimum",
    "maximum": "exclusiveMaximum",
    "exclusiveMaximum": "maximum",
}
_COMPARED: Final = frozenset(
    {
        *_LOWER,
        *_UPPER,
        "additionalProperties",
        "const",
        "contentEncoding",
        "contentMediaType",
        "enum",
        "format",
        "items",
    }
    | {"multipleOf", "pattern", "prefixItems", "properties", "required", "uniqueItems"}
)
_Pair = tuple[str, str]


@dataclass(frozen=True)
class Finding:
    """A difference that makes a value invalid.

    Attributes:
        path: The field, such as ``items[].price``; "" for the whole.
        text: The difference, worded for the direction.
    """

    path: str
    text: str


class Comparison:
    """Compares schemas of two documents.

    Args:
        direction: ``receive`` for what a service accepts, ``send`` for what it returns or publishes.
        old: The document of the old schemas.
        new: The document of the new schemas.
    """

    def __init__(self, direction: Direction, old: Any, new: Any) -> None:
        self._direction = direction
        self._old = old
        self._new = new
        self._open: set[_Pair] = set()

    def compare(self, old: Any, new: Any, path: str = "") -> list[Finding]:
        """Return the breaking differences between two schemas."""
        inner, outer = (old, new) if self._direction == "receive" else (new, old)
        return list(dict.fromkeys(self._schemas(inner, outer, path)))

    def _schemas(self, inner: Any, outer: Any, path: str) -> Iterator[Finding]:
        """Yield why a value that is valid by `inner` is not valid by `outer`."""
        pair = json.dumps(inner, sort_keys=True), json.dumps(outer, sort_keys=True)
        if pair in self._open:  # a recursive schema: it is being compared already
            return
        self._open.add(pair)
        try:
            documents = (self._old, self._new) if self._direction == "receive" else (self._new, self._old)
            wider = shapes_of(outer, documents[1])
            for shape in shapes_of(inner, documents[0]):
                yield from self._fit(shape, wider, path)
        finally:
            self._open.discard(pair)

    def _fit(self, shape: Shape, wider: list[Shape], path: str) -> Iterator[Finding]:
        best: list[Finding] | None = None
        for other in wider:
            if not _types_fit(shape.type, other.type):
                continue
            found = list(self._shapes(shape, other, path))
            if not found:
                return
            if best is None or len(found) < len(best):
                best = found
        if shape.values is not None and len(shape.values) > 1:  # each value may fit another alternative
            for value in shape.values:
                yield from self._fit(Shape(shape.type, {"enum": [value]}, shape.document), wider, path)
        elif best is not None:
            yield from best
        else:
            what = _listed(shape.values) if shape.values is not None else (shape.type or "a value of any type")
            yield Finding(path, self._say("no longer accepts", "may be", "now", what))

    @property
    def _receives(self) -> bool:
        return self._direction == "receive"

    def _say(self, receive: str, send: str, suffix: str, what: str) -> str:
        return f"{receive} {what}" if self._receives else f"{send} {what} {suffix}"

    def _shapes(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        if inner.values is not None and outer.values is None:
            yield from self._values_fit(inner, outer, path)
            return
        yield from self._enumerations(inner, outer, path)
        yield from self._bounds(inner, outer, path)
        yield from self._texts(inner, outer, path)
        if "object" in (inner.type, outer.type) or "properties" in inner.rules:
            yield from self._objects(inner, outer, path)
        if "array" in (inner.type, outer.type):
            yield from self._arrays(inner, outer, path)
        for name in sorted((inner.rules.keys() | outer.rules.keys()) - _COMPARED):
            if inner.rules.get(name) != outer.rules.get(name) and name in outer.rules:
                yield Finding(path, f"has other rules: {name}")

    def _values_fit(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        wrong = [value for value in inner.values or () if not _is_valid(value, outer)]
        if wrong:
            yield Finding(path, self._say("no longer accepts", "may be", "now", _listed(wrong)))

    def _enumerations(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        if outer.values is None:
            return
        if inner.values is None:
            if inner.type == "null" or (inner.type == "boolean" and {True, False} <= set(outer.values)):
                return
            only = _listed(outer.values)
            yield Finding(path, f"accepts only {only} now" if self._receives else f"may be more than {only} now")
            return
        missing = [value for value in inner.values if value not in outer.values]
        if missing:
            yield Finding(path, self._say("no longer accepts", "may be", "now", _listed(missing)))

    def _bounds(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        for names, is_looser in ((_LOWER, operator.lt), (_UPPER, operator.gt)):
            for name in names:
                if name not in outer.rules or (name in _COUNTS and not outer.rules[name]):
                    continue
                bound, own = outer.rules[name], inner.rules.get(name)
                if own is None:  # a bound that includes its value may stand for one that does not, or the reverse
                    own = inner.rules.get(_SIBLINGS.get(name, ""))
                    if own == bound and name.startswith("exclusive"):
                        own = None
                if own is None or is_looser(own, bound):
                    yield Finding(path, self._changed(name, inner, outer))
        step, own = outer.rules.get("multipleOf"), inner.rules.get("multipleOf")
        if step and (own is None or own % step):
            yield Finding(path, self._changed("multipleOf", inner, outer))

    def _texts(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        for name in ("pattern", "format", "contentEncoding", "contentMediaType"):
            if name in outer.rules and inner.rules.get(name) != outer.rules[name]:
                yield Finding(path, self._changed(name, inner, outer))

    def _changed(self, name: str, inner: Shape, outer: Shape) -> str:
        old, new = (inner, outer) if self._receives else (outer, inner)
        was, now = (json.dumps(one.rules[name]) if name in one.rules else "none" for one in (old, new))
        return f"{name} was {was}, is {now}"

    def _objects(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        required = set(inner.rules.get("required", ()))
        for name in outer.rules.get("required", ()):
            if name not in required:
                text = "is required now" if self._receives else "is not always sent now"
                if not self._receives and name not in inner.rules.get("properties", {}):
                    text = "is no longer sent"
                yield Finding(_joined(path, name), text)
        own, others = inner.rules.get("properties", {}), outer.rules.get("properties", {})
        if not self._receives:
            for name in others.keys() - own.keys() - set(outer.rules.get("required", ())):
                yield Finding(_joined(path, name), "is no longer sent")
        extra = outer.rules.get("additionalProperties", True)
        for name in sorted(own):
            if name in others:
                yield from self._schemas(own[name], others[name], _joined(path, name))
            elif extra is False:
                if self._receives:
                    yield Finding(_joined(path, name), "is not accepted any more")
            elif extra is not True:
                yield from self._schemas(own[name], extra, _joined(path, name))
        yield from self._extra(inner.rules.get("additionalProperties", True), extra, path)

    def _extra(self, own: Any, extra: Any, path: str) -> Iterator[Finding]:
        if extra is True or own is False or extra == {}:
            return
        if extra is False:
            if self._receives:
                yield Finding(path, "does not accept unknown fields any more")
        elif own is True or own == {}:
            yield Finding(_joined(path, "*"), "has other rules for further fields")
        else:
            yield from self._schemas(own, extra, _joined(path, "*"))

    def _arrays(self, inner: Shape, outer: Shape, path: str) -> Iterator[Finding]:
        if outer.rules.get("uniqueItems") and not inner.rules.get("uniqueItems"):
            yield Finding(path, "must have distinct items now" if self._receives else "may repeat items now")
        own, others = inner.rules.get("prefixItems", []), outer.rules.get("prefixItems", [])
        for number in range(max(len(own), len(others))):
            first = own[number] if number < len(own) else inner.rules.get("items", True)
            second = others[number] if number < len(others) else outer.rules.get("items", True)
            yield from self._schemas(first, second, f"{path}[{number}]")
        yield from self._schemas(inner.rules.get("items", True), outer.rules.get("items", True), f"{path}[]")


def _types_fit(inner: str, outer: str) -> bool:
    return not outer or inner == outer or (inner == "integer" and outer == "number")


def _is_valid(value: Any, shape: Shape) -> bool:
    """Return whether a single value is valid, as far as its length, its size and its type say."""
    if shape.type and not _types_fit(type_of(value), shape.type):
        return False
    rules = shape.rules
    size = len(value) if isinstance(value, str) else value
    low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minimum", "maximum")
    if isinstance(value, bool) or not isinstance(size, int | float):
        return True
    return bool(rules.get(low, size) <= size <= rules.get(high, size)) and not {"pattern", "format"} & rules.keys()


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _listed(values: list[Any]) -> str:
    shown = [json.dumps(value, ensure_ascii=False) for value in values[:5]]
    return ", ".join(shown) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
