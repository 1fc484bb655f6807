"""Pairs of schemas, and what is said of the change: for what a service receives, and for what it sends.

An empty text means that nothing breaks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

S = {"type": "string"}
I = {"type": "integer"}  # noqa: E741 - a schema, as the others
N = {"type": "number"}
B = {"type": "boolean"}
NULL = {"type": "null"}


class Pair(NamedTuple):
    """One change of a schema.

    Attributes:
        title: What changes.
        old: The old schema.
        new: The new schema.
        receive: What is said if the service receives it.
        send: What is said if the service sends it.
    """

    title: str
    old: Any
    new: Any
    receive: str
    send: str


def thing(required: str = "", extra: Any = None, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object."""
    made: dict[str, Any] = {"type": "object", "properties": properties, "required": required.split()}
    return made if extra is None else {**made, "additionalProperties": extra}


def array(items: Any, **rules: Any) -> dict[str, Any]:
    """Return the schema of an array."""
    return {"type": "array", "items": items, **rules}


def either(*alternatives: Any) -> dict[str, Any]:
    """Return the schema of alternatives."""
    return {"anyOf": list(alternatives)}


SCHEMAS = [
    # --- fields ---
    Pair("nothing", thing("a", a=S), thing("a", a=S), "", ""),
    Pair("new optional field", thing("a", a=S), thing("a", a=S, b=S), "", ""),
    Pair("new required field", thing("a", a=S), thing("a b", a=S, b=S), "b is required now", ""),
    Pair("optional field becomes required", thing(a=S), thing("a", a=S), "a is required now", ""),
    Pair("required field becomes optional", thing("a", a=S), thing(a=S), "", "a is not always sent now"),
    Pair("required field goes", thing("a b", a=S, b=S), thing("a", a=S), "", "b is no longer sent"),
    Pair("optional field goes", thing("a", a=S, b=S), thing("a", a=S), "", "b is no longer sent"),
    Pair("field is renamed", thing("a", a=S), thing("b", b=S), "b is required now", "a is no longer sent"),
    Pair("order of fields", thing("a b", a=S, b=S), thing("b a", b=S, a=S), "", ""),
    Pair(
        "field in a field", thing("a", a=thing("b", b=S)), thing("a", a=thing("b c", b=S, c=I)), "a.c is required", ""
    ),
    Pair("field in a field goes", thing("a", a=thing("b", b=S)), thing("a", a=thing()), "", "a.b is no longer sent"),
    Pair("unknown fields are refused", thing(a=S), thing(a=S, extra=False), "does not accept unknown fields", ""),
    Pair("unknown fields are accepted", thing(a=S, extra=False), thing(a=S), "", ""),
    Pair(
        "field goes where unknown ones are refused",
        thing(a=S, b=S, extra=False),
        thing(a=S, extra=False),
        "b is not",
        "b is no",
    ),
    Pair("field is new where unknown ones are refused", thing(a=S, extra=False), thing(a=S, b=S, extra=False), "", ""),
    Pair("map of numbers becomes one of integers", thing(extra=N), thing(extra=I), "* no longer accepts number", ""),
    Pair("map of integers becomes one of numbers", thing(extra=I), thing(extra=N), "", "* may be number now"),
    Pair("map becomes closed", thing(extra=S), thing(extra=False), "does not accept unknown fields", ""),
    Pair("map of anything gets a type", thing(extra=True), thing(extra=S), "other rules for further fields", ""),
    # --- types ---
    Pair("string becomes integer", S, I, "no longer accepts string", "may be integer now"),
    Pair("integer becomes number", I, N, "", "may be number now"),
    Pair("number becomes integer", N, I, "no longer accepts number", ""),
    Pair("string becomes anything", S, {}, "", "may be a value of any type now"),
    Pair("anything becomes a string", {}, S, "no longer accepts a value of any type", ""),
    Pair("object becomes array", thing(), array(S), "no longer accepts object", "may be array now"),
    Pair("second type", S, {"type": ["string", "integer"]}, "", "may be integer now"),
    Pair("one of two types goes", {"type": ["string", "integer"]}, S, "no longer accepts integer", ""),
    Pair("list of types against anyOf", {"type": ["string", "integer"]}, either(S, I), "", ""),
    Pair("boolean against its two values", B, {"enum": [True, False]}, "", ""),
    Pair("no value is valid any more", S, False, "no longer accepts string", ""),
    # --- null ---
    Pair("becomes nullable by anyOf", S, either(S, NULL), "", "may be null now"),
    Pair("becomes nullable by a list of types", S, {"type": ["string", "null"]}, "", "may be null now"),
    Pair("becomes nullable as in OpenAPI 3.0", S, {"type": "string", "nullable": True}, "", "may be null now"),
    Pair("is not nullable any more", either(S, NULL), S, "no longer accepts null", ""),
    Pair("null written in two ways", either(S, NULL), {"type": ["null", "string"]}, "", ""),
    Pair("null written in two ways, with an enum", either({"enum": ["a"]}, NULL), {"enum": ["a", None]}, "", ""),
    Pair(
        "nullable field becomes optional",
        thing("a", a=either(S, NULL)),
        thing(a=either(S, NULL)),
        "",
        "a is not always",
    ),
    Pair("null in an array", array(S), array(either(S, NULL)), "", "[] may be null now"),
    # --- values ---
    Pair("value is added", {"enum": ["a"]}, {"enum": ["a", "b"]}, "", 'may be "b" now'),
    Pair("value goes", {"enum": ["a", "b"]}, {"enum": ["a"]}, 'no longer accepts "b"', ""),
    Pair("values in another order", {"enum": ["a", "b"]}, {"enum": ["b", "a"]}, "", ""),
    Pair("const becomes enum", {"const": "a"}, {"enum": ["a", "b"]}, "", 'may be "b" now'),
    Pair("enum becomes const", {"enum": ["a", "b"]}, {"const": "a"}, 'no longer accepts "b"', ""),
    Pair("const is an enum of one", {"const": "a"}, {"enum": ["a"]}, "", ""),
    Pair("const changes", {"const": "a"}, {"const": "b"}, 'no longer accepts "a"', 'may be "b" now'),
    Pair("string becomes enum", S, {"type": "string", "enum": ["a"]}, 'accepts only "a" now', ""),
    Pair("enum becomes string", {"type": "string", "enum": ["a"]}, S, "", 'may be more than "a" now'),
    Pair("enum becomes integer", {"enum": ["a"]}, I, 'no longer accepts "a"', "may be integer now"),
    Pair("number among strings", {"enum": ["a", 1]}, {"enum": ["a"]}, "no longer accepts 1", ""),
    Pair("values become a union", {"enum": ["a", "b"]}, either({"const": "a"}, {"const": "b"}), "", ""),
    # --- bounds ---
    Pair("minimum is raised", {**I, "minimum": 1}, {**I, "minimum": 2}, "minimum was 1, is 2", ""),
    Pair("minimum is lowered", {**I, "minimum": 2}, {**I, "minimum": 1}, "", "minimum was 2, is 1"),
    Pair("minimum is new", I, {**I, "minimum": 1}, "minimum was none, is 1", ""),
    Pair("maximum is lowered", {**I, "maximum": 2}, {**I, "maximum": 1}, "maximum was 2, is 1", ""),
    Pair("maximum goes", {**I, "maximum": 2}, I, "", "maximum was 2, is none"),
    Pair(
        "bound becomes exclusive",
        {**N, "minimum": 0},
        {**N, "exclusiveMinimum": 0},
        "exclusiveMinimum was none, is 0",
        "",
    ),
    Pair(
        "bound includes its value",
        {**N, "exclusiveMinimum": 0},
        {**N, "minimum": 0},
        "",
        "exclusiveMinimum was 0, is none",
    ),
    Pair("text becomes shorter", {**S, "maxLength": 9}, {**S, "maxLength": 8}, "maxLength was 9, is 8", ""),
    Pair("text may not be empty", S, {**S, "minLength": 1}, "minLength was none, is 1", ""),
    Pair("minimum length of 0 says nothing", S, {**S, "minLength": 0}, "", ""),
    Pair("more items", array(S, maxItems=2), array(S, maxItems=3), "", "maxItems was 2, is 3"),
    Pair("fewer items", array(S, minItems=1), array(S, minItems=2), "minItems was 1, is 2", ""),
    Pair("distinct items", array(S), array(S, uniqueItems=True), "must have distinct items now", ""),
    Pair("items may repeat", array(S, uniqueItems=True), array(S), "", "may repeat items now"),
    Pair("step", {**I, "multipleOf": 10}, {**I, "multipleOf": 5}, "", "multipleOf was 10, is 5"),
    Pair("coarser step", {**I, "multipleOf": 5}, {**I, "multipleOf": 10}, "multipleOf was 5, is 10", ""),
    Pair("pattern is new", S, {**S, "pattern": "^a"}, 'pattern was none, is "^a"', ""),
    Pair("pattern goes", {**S, "pattern": "^a"}, S, "", 'pattern was "^a", is none'),
    Pair("pattern changes", {**S, "pattern": "^a"}, {**S, "pattern": "^b"}, 'is "^b"', 'is "^b"'),
    Pair("format is new", S, {**S, "format": "uuid"}, 'format was none, is "uuid"', ""),
    Pair("format goes", {**S, "format": "uuid"}, S, "", 'format was "uuid", is none'),
    # --- arrays ---
    Pair("items change", array(S), array(I), "[] no longer accepts string", "[] may be integer now"),
    Pair("field of items", array(thing("a", a=S)), array(thing("a b", a=S, b=S)), "[].b is required now", ""),
    Pair(
        "place of a tuple",
        {"type": "array", "prefixItems": [S, S]},
        {"type": "array", "prefixItems": [S, I]},
        "[1] no",
        "[1] may",
    ),
    Pair("items get a type", {"type": "array"}, array(S), "[] no longer accepts", ""),
    # --- unions ---
    Pair("alternative is added", either(S), either(S, I), "", "may be integer now"),
    Pair("alternative goes", either(S, I), either(S), "no longer accepts integer", ""),
    Pair("alternatives in another order", either(S, I), either(I, S), "", ""),
    Pair("oneOf instead of anyOf", either(S, I), {"oneOf": [S, I]}, "", ""),
    Pair(
        "field of one alternative",
        either(thing("k a", k={"const": "x"}, a=S), thing("k", k={"const": "y"})),
        either(thing("k a b", k={"const": "x"}, a=S, b=S), thing("k", k={"const": "y"})),
        "b is required now",
        "",
    ),
    Pair("allOf is flattened", {"allOf": [thing("a", a=S), thing("b", b=S)]}, thing("a b", a=S, b=S), "", ""),
    Pair(
        "allOf gets a part",
        {"allOf": [thing("a", a=S)]},
        {"allOf": [thing("a", a=S), thing("b", b=S)]},
        "b is required",
        "",
    ),
    # --- words ---
    Pair("title and description", {**S, "title": "A"}, {**S, "title": "B", "description": "c"}, "", ""),
    Pair("default", {**S, "default": "a"}, {**S, "default": "b"}, "", ""),
    Pair("extension", S, {**S, "x-note": 1}, "", ""),
    Pair("rule that is not understood", S, {**S, "not": {"const": "a"}}, "has other rules: not", ""),
]


class Referred(NamedTuple):
    """A change of a schema with definitions.

    Attributes:
        title: What changes.
        old: The old definitions.
        new: The new definitions; the schema is the first of each.
        receive: What is said if the service receives it.
        send: What is said if the service sends it.
    """

    title: str
    old: dict[str, Any]
    new: dict[str, Any]
    receive: str
    send: str


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


TREE = thing("name", name=S, children=array(ref("Node")))
REFERENCES = [
    Referred(
        "definition is renamed", {"A": thing("b", b=ref("B")), "B": S}, {"X": thing("b", b=ref("Y")), "Y": S}, "", ""
    ),
    Referred("definition is written out", {"A": thing("b", b=ref("B")), "B": S}, {"A": thing("b", b=S)}, "", ""),
    Referred(
        "definition of one name gets another content",
        {"A": thing("b", b=ref("B")), "B": thing("c", c=S)},
        {"A": thing("b", b=ref("B")), "B": thing("c d", c=S, d=S)},
        "b.d is required now",
        "",
    ),
    Referred("recursive schema is the same", {"Node": TREE}, {"Node": TREE}, "", ""),
    Referred(
        "recursive schema gets a field",
        {"Node": TREE},
        {"Node": thing("name size", name=S, size=I, children=array(ref("Node")))},
        "size is required now",
        "",
    ),
    Referred(
        "recursive schema loses a field",
        {"Node": TREE},
        {"Node": thing(children=array(ref("Node")))},
        "",
        "name is no longer",
    ),
    Referred(
        "null beside a reference",
        {"A": thing(b=ref("B")), "B": S},
        {"A": thing(b=either(ref("B"), NULL)), "B": S},
        "",
        "b may be null",
    ),
    Referred("reference to nothing is anything", {"A": ref("Gone")}, {"A": ref("Away")}, "", ""),
]
