"""Compare two OpenAPI documents: changes for callers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from totoms.contracts.changes import Change
from totoms.contracts.comparison import Comparison, Direction
from totoms.contracts.openapi import REQUIRES
from totoms.contracts.requirements import allows_as_before
from totoms.contracts.shapes import resolve

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@dataclass(frozen=True)
class _Operation:
    name: str
    path: str
    rules: dict[str, Any]
    document: Any

    @property
    def parameters(self) -> dict[tuple[str, str], dict[str, Any]]:
        """By place and name; those in the path by their position, since callers do not see their names."""
        names = re.findall(r"\{([^}]*)\}", self.path)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for one in self.rules.get("parameters", []):
            parameter = resolve(one, self.document)
            place, name = str(parameter.get("in")), str(parameter.get("name"))
            if place == "path":
                name = str(names.index(name)) if name in names else name
            found[place, name.lower() if place == "header" else name] = parameter
        return found


def http_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Yield the changes for callers between two OpenAPI documents."""
    before, after = _operations(old), _operations(new)
    for key in sorted(before):
        whom = f"callers of {before[key].name}"
        if key not in after:
            yield Change(True, whom, "the endpoint is gone")
        else:
            yield from _compare(before[key], after[key], whom)
    for key in sorted(after.keys() - before.keys()):
        yield Change(False, f"callers of {after[key].name}", "the endpoint is new")


def _operations(document: dict[str, Any]) -> dict[str, _Operation]:
    found: dict[str, _Operation] = {}
    for path, item in document.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                name = f"{method.upper()} {path}"
                found[re.sub(r"\{[^}]*\}", "{}", name)] = _Operation(name, path, item[method], document)
    return found


def _compare(old: _Operation, new: _Operation, whom: str) -> Iterator[Change]:
    yield from _access(old.rules, new.rules, whom)
    yield from _parameters(old, new, whom)
    yield from _body(old, new, whom)
    yield from _responses(old, new, whom)
    if new.rules.get("deprecated") and not old.rules.get("deprecated"):
        yield Change(False, whom, "the endpoint is deprecated")


def _access(old: dict[str, Any], new: dict[str, Any], whom: str) -> Iterator[Change]:
    if not old.get("security") and new.get("security"):
        yield Change(True, whom, "a token is required now")
    elif old.get("security") and not new.get("security"):
        yield Change(False, whom, "no token is required any more")
    if not allows_as_before(old.get(REQUIRES), new.get(REQUIRES)):
        yield Change(True, whom, "callers who were allowed may be refused: other scopes, roles or issuers are required")


def _parameters(old: _Operation, new: _Operation, whom: str) -> Iterator[Change]:
    before, after = old.parameters, new.parameters
    for key in sorted(before.keys() | after.keys()):
        place, _ = key
        name = (after.get(key) or before[key]).get("name")
        what = f"{place} parameter {name}"
        if key not in after:
            yield Change(False, whom, f"{what} is ignored now")
        elif key not in before:
            required = bool(after[key].get("required"))
            yield Change(required, whom, f"{what} is {'required now' if required else 'new, and optional'}")
        else:
            if after[key].get("required") and not before[key].get("required"):
                yield Change(True, whom, f"{what} is required now")
            yield from _schemas("receive", (old, before[key]), (new, after[key]), whom, what)


def _body(old: _Operation, new: _Operation, whom: str) -> Iterator[Change]:
    before = resolve(old.rules.get("requestBody", {}), old.document)
    after = resolve(new.rules.get("requestBody", {}), new.document)
    if after.get("required") and not before.get("required"):
        yield Change(True, whom, "a body is required now")
    if before and not after:
        yield Change(False, whom, "the body is ignored now")
        return
    yield from _contents("receive", (old, before), (new, after), whom, "body")


def _responses(old: _Operation, new: _Operation, whom: str) -> Iterator[Change]:
    before, after = old.rules.get("responses", {}), new.rules.get("responses", {})
    for status in sorted(before.keys() | after.keys()):
        what = f"response {status}"
        succeeds = status.startswith("2") or status == "default"
        if status not in after:
            yield Change(succeeds, whom, f"{what} is gone")
        elif status not in before:
            yield Change(False, whom, f"{what} is new")
        else:
            first = resolve(before[status], old.document)
            second = resolve(after[status], new.document)
            for name in sorted(first.get("headers", {}).keys() - second.get("headers", {}).keys()):
                yield Change(True, whom, f"{what}: the header {name} is gone")
            yield from _contents("send", (old, first), (new, second), whom, what)


_Part = tuple[_Operation, dict[str, Any]]


def _contents(direction: Direction, old: _Part, new: _Part, whom: str, what: str) -> Iterator[Change]:
    before, after = old[1].get("content", {}), new[1].get("content", {})
    for kind in sorted(before.keys() | after.keys()):
        if kind not in after:
            text = "is not accepted any more" if direction == "receive" else "is not returned any more"
            yield Change(True, whom, f"{what}: {kind} {text}")
        elif kind in before:
            shown = what if kind == "application/json" else f"{what} ({kind})"
            yield from _schemas(direction, (old[0], before[kind]), (new[0], after[kind]), whom, shown)


def _schemas(direction: Direction, old: _Part, new: _Part, whom: str, what: str) -> Iterator[Change]:
    comparison = Comparison(direction, old[0].document, new[0].document)
    for finding in comparison.compare(old[1].get("schema", {}), new[1].get("schema", {})):
        yield Change(True, whom, f"{what}: {f'{finding.path} ' if finding.path else ''}{finding.text}")
