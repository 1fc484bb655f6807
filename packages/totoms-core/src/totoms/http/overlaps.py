"""Find routes that take requests from later ones: ``/hello/{name}`` before ``/hello/me``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from starlette.routing import Mount, Route, compile_path

from totoms.errors import ConfigurationError
from totoms.http.access import Access, Decision
from totoms.http.delegate import delegate_of
from totoms.logging.logger import TotoLogger

_LITERAL, _TYPED, _TEXT, _REST = range(4)
"""How much a segment of a template matches, from least to most."""
_RANKS: Final = {"PathConvertor": _REST, "StringConvertor": _TEXT}


class Overlap(Enum):
    """What a route takes from a later one.

    Attributes:
        NOTHING: They match no path in common, or the first is the more specific one.
        SOME: Some of its requests: ``/{a}/x`` and ``/y/{b}``.
        ALL: All of its requests: ``/{a}`` and ``/x``.
    """

    NOTHING = 0
    SOME = 1
    ALL = 2


def check_overlaps(decided: Sequence[Decision], logger: TotoLogger) -> None:
    """Log a warning for each route that takes requests from a later one.

    Args:
        decided: The decisions, in the order in which routes are matched.
        logger: The service's logger.

    Raises:
        ConfigurationError: The two routes have different access rules: a request that is meant for a closed route might
            be served by an open one.
    """
    earlier: dict[str, list[Decision]] = {}
    shown: set[tuple[str, str]] = set()
    for later in decided:
        if not isinstance(later.route, Route | Mount):
            continue
        before = earlier.setdefault(later.method, [])
        for first in before:
            overlap = overlap_of(first.path, later.path)
            if overlap is Overlap.NOTHING:
                continue
            one, other = f"{first.method} {first.path}", f"{later.method} {later.path}"
            text = f"{one} comes before {other} and takes {overlap.name.lower()} of its requests"
            if _differs(first, later, overlap):
                raise ConfigurationError(f"{text}, but they differ in who may call them: declare {other} first.")
            if (first.path, later.path) not in shown:  # HEAD follows GET
                shown.add((first.path, later.path))
                logger.log("init", f"{text}.", "WARNING")
        before.append(later)


def _differs(first: Decision, later: Decision, overlap: Overlap) -> bool:
    """Return whether the overlap is refused. Where each takes some of the other's, the closed one may come first."""
    if overlap is Overlap.SOME:
        return first.access is Access.PUBLIC and later.access is Access.CLOSED
    return _protection(first) != _protection(later)


def _protection(decision: Decision) -> object:
    delegate = delegate_of(getattr(decision.route, "endpoint", None))
    return decision.access, None if delegate is None else delegate.requires


def overlap_of(first: str, later: str) -> Overlap:
    """Return what a route takes from a later one.

    Args:
        first: Its path template, such as ``/hello/{name}`` or, for a mount, ``/static/*``.
        later: The template of the later one.
    """
    ours, theirs = _segments(first), _segments(later)
    if not any("{" in segment for segment in theirs):
        return Overlap.ALL if compile_path("".join(ours))[0].match(later) else Overlap.NOTHING
    wider = narrower = False
    for one, other in zip(ours, theirs, strict=False):
        if not (_may_match(one, other) and _may_match(other, one)):
            return Overlap.NOTHING
        ranks = _rank(one), _rank(other)
        wider |= ranks[0] > ranks[1]
        narrower |= ranks[0] < ranks[1]
        if _REST in ranks:
            break
    else:
        if len(ours) != len(theirs):
            return Overlap.NOTHING
    if narrower:
        return Overlap.SOME if wider else Overlap.NOTHING
    return Overlap.ALL


def _segments(template: str) -> list[str]:
    return [f"/{'{rest:path}' if segment == '*' else segment}" for segment in template.split("/")[1:]]


def _rank(segment: str) -> int:
    if "{" not in segment:
        return _LITERAL
    _, text, convertors = compile_path(segment)
    (kind, *more) = [type(convertor).__name__ for convertor in convertors.values()]
    # A segment of text and parameters, such as "{name}.json", matches less than a parameter alone.
    return _TYPED if more or not (text.startswith("/{") and text.endswith("}")) else _RANKS.get(kind, _TYPED)


def _may_match(segment: str, other: str) -> bool:
    """Return whether `segment` can match a path that `other` matches."""
    return "{" in other or compile_path(segment)[0].match(other) is not None
