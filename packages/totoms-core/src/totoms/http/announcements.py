"""The log lines at start: which routes are open, and how to open a closed one."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Mount, Route, WebSocketRoute

from totoms.http import documentation
from totoms.http.access import Access, Decision
from totoms.http.delegate import delegate_of
from totoms.http.private_api import is_documentation
from totoms.logging.logger import TotoLogger


def announce(decided: Sequence[Decision], logger: TotoLogger, unused: Sequence[str] = ()) -> None:
    """Log the open routes, the user's closed routes, and the patterns of `public_routes` that match nothing.

    Args:
        decided: The decisions that are not logged yet.
        logger: The service's logger.
        unused: The patterns that match no route.
    """
    opened = [one for one in decided if one.access is Access.PUBLIC]
    if opened:
        level = "INFO" if all(map(_is_documentation, opened)) else "WARNING"
        logger.log("init", f"Open to callers without a token: {', '.join(_lines(opened))}.", level)
    closed = [one for one in decided if one.access is Access.CLOSED and _is_users(one)]
    for line in _lines(closed):
        logger.log("init", f"Closed to callers without a token: {line}. To open it: {_hint(line)}", "WARNING")
    for pattern in unused:
        logger.log("init", f"public_routes: no route matches {pattern!r}.", "WARNING")


def _lines(decisions: Sequence[Decision]) -> list[str]:
    """Return "GET /path" for each route, without the HEAD that goes with a GET."""
    known = {(id(one.route), one.path, one.method) for one in decisions}
    lines: dict[str, None] = {}
    for one in decisions:
        if isinstance(one.route, Route | WebSocketRoute):
            if one.method == "HEAD" and ((id(one.route), one.path, "GET") in known or _is_head_of_get(one)):
                continue
            lines[f"{one.method} {one.path}"] = None
        else:
            lines[one.path if isinstance(one.route, Mount) else repr(one.route)] = None
    return list(lines)


def _is_users(one: Decision) -> bool:
    """Return whether the user added the route to the app: it is neither a delegate nor FastAPI's documentation."""
    return delegate_of(getattr(one.route, "endpoint", None)) is None and not _is_documentation(one)


def _is_documentation(one: Decision) -> bool:
    endpoint = getattr(one.route, "endpoint", None)
    return is_documentation(endpoint) or getattr(endpoint, "__module__", "") == documentation.__name__


def _is_head_of_get(one: Decision) -> bool:
    return getattr(one.route, "head_of_get", False)


def _hint(line: str) -> str:
    if line == "/*" or "/" not in line or line.endswith(">"):
        return "public(...) around the route or mount"
    return f'APIConfiguration(public_routes=["{line}"])'
