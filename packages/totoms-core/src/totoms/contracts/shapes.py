"""Normalise JSON Schemas for comparison: resolve references, and list alternatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_ANNOTATIONS: Final = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "default",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    }
)
"""Keywords that do not affect which values are valid."""
_TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
_MOST_ALTERNATIVES: Final = 200


@dataclass(frozen=True)
class Shape:
    """One alternative of a schema: values of one type.

    Attributes:
        type: The type; "" for values of any type.
        rules: The keywords that hold for it.
        document: Where references are looked up.
    """

    type: str
    rules: dict[str, Any]
    document: Any

    @property
    def values(self) -> list[Any] | None:
        """The only valid values; None for no such list."""
        if "const" in self.rules:
            return [self.rules["const"]]
        found: list[Any] | None = self.rules.get("enum")
        return found


def shapes_of(schema: Any, document: Any) -> list[Shape]:
    """Return the alternatives of a schema; an empty list if no value is valid.

    Args:
        schema: The schema.
        document: The document that its references point into.
    """
    found: list[Shape] = []
    for rules in _alternatives(schema, document, 0):
        found += _by_type(rules, document)
        if len(found) > _MOST_ALTERNATIVES:
            return [Shape("", {"tooManyAlternatives": True}, document)]
    return found


def resolve(schema: Any, document: Any) -> Any:
    """Follow the references of a schema; a reference to nothing, or to itself, is any value."""
    seen: set[str] = set()
    while isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
        if reference in seen or not reference.startswith("#/"):
            return {}
        seen.add(reference)
        beside = {name: value for name, value in schema.items() if name != "$ref" and name not in _ANNOTATIONS}
        target = _follow(reference, document)
        schema = {"allOf": [target, beside]} if beside else target
    return schema


def _follow(reference: str, document: Any) -> Any:
    part = document
    for name in reference.removeprefix("#/").split("/"):
        name = name.replace("%20", " ").replace("%25", "%").replace("~1", "/").replace("~0", "~")
        if not isinstance(part, dict) or name not in part:
            return {}
        part = part[name]
    return part


def _alternatives(schema: Any, document: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yield the alternatives of ``anyOf`` and ``oneOf``, each merged with the rules around them."""
    schema = resolve(schema, document)
    if schema is False:
        return
    if not isinstance(schema, dict) or depth > 20:
        yield {}
        return
    own = {name: value for name, value in schema.items() if name not in _ANNOTATIONS and not name.startswith("x-")}
    merged = [{name: value for name, value in own.items() if name not in ("allOf", "anyOf", "oneOf")}]
    groups = [[part] for part in own.get("allOf", ())]
    groups += [own[name] for name in ("anyOf", "oneOf") if own.get(name)]
    for group in groups:
        choices = [one for part in group for one in _alternatives(part, document, depth + 1)]
        merged = [_merge(one, other) for one in merged for other in choices][: _MOST_ALTERNATIVES + 1]
    yield from merged


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Merge two sets of rules: a value must meet both."""
    made = {**one, **other}
    if "properties" in one and "properties" in other:
        made["properties"] = {
            name: {"allOf": [one["properties"][name], other["properties"][name]]}
            if name in one["properties"] and name in other["properties"]
            else (one["properties"] | other["properties"])[name]
            for name in one["properties"] | other["properties"]
        }
    if "required" in one and "required" in other:
        made["required"] = [*one["required"], *other["required"]]
    for name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        if name in one and name in other:
            made[name] = max(one[name], other[name])
    for name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        if name in one and name in other:
            made[name] = min(one[name], other[name])
    if "type" in one and "type" in other:
        made["type"] = [each for each in _type_list(one["type"]) if each in _type_list(other["type"])]
    if "enum" in one and "enum" in other:
        made["enum"] = [value for value in one["enum"] if value in other["enum"]]
    return made


def _by_type(rules: dict[str, Any], document: Any) -> Iterator[Shape]:
    """Yield a shape for each type that the rules allow."""
    rest = {name: value for name, value in rules.items() if name not in ("type", "nullable")}
    types = _type_list(rules["type"]) if "type" in rules else []
    if rules.get("nullable") is True and types:  # OpenAPI 3.0
        types = [*types, "null"]
    listed = rest.get("enum") if "const" not in rest else [rest["const"]]
    if listed is not None:
        allowed = [value for value in listed if not types or type_of(value) in _with_integers(types)]
        for name in dict.fromkeys(map(type_of, allowed)):
            yield Shape(name, {"enum": [value for value in allowed if type_of(value) == name]}, document)
        return
    for name in types:
        yield Shape(name, rest, document)
    if "type" not in rules:
        inferred = "object" if "properties" in rest else "array" if "items" in rest else ""
        yield Shape(inferred, rest, document)


def _type_list(types: Any) -> list[str]:
    return [types] if isinstance(types, str) else [one for one in types if one in _TYPES]


def _with_integers(types: list[str]) -> list[str]:
    return [*types, "integer"] if "number" in types else types


def type_of(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
