"""Finds who answers a path without parameters by dictionary instead of trying route after route."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

from totoms.route import DelegateRoute, PushRoute

_STOCK: Final = (Route.matches, APIRoute.matches)


class StaticPaths:
    """An index in front of a route list. It answers only where the list would give the same answer.

    Args:
        routes: Gives the route list. It may change at any time; the index follows.
    """

    def __init__(self, routes: Callable[[], Sequence[BaseRoute]]) -> None:
        self._routes = routes
        self._seen: list[BaseRoute] = []
        self._index: dict[tuple[str, str], DelegateRoute | PushRoute] = {}

    def find(self, scope: Scope) -> DelegateRoute | PushRoute | None:
        """Return the route that serves `scope`, if it has a static path and a short way; else None."""
        if self._routes() != self._seen:
            self._build()
        if scope.get("root_path"):
            return None
        return self._index.get((scope["method"], scope["path"]))

    def _build(self) -> None:
        seen = list(self._routes())
        index: dict[tuple[str, str], DelegateRoute | PushRoute] = {}
        earlier: list[Route] = []
        taken: set[tuple[str, str]] = set()
        for route in seen:
            if isinstance(route, WebSocketRoute):
                continue
            if not isinstance(route, Route) or type(route).matches not in _STOCK:
                break  # a mount, an included router or a class of the user's: what it matches can change unseen
            if not route.param_convertors and route.methods:
                for method in route.methods:
                    key = (method, route.path)
                    free = key not in taken and not _shadowed(earlier, method, route.path)
                    if free and (isinstance(route, PushRoute) or (isinstance(route, DelegateRoute) and route.short)):
                        index[key] = route
                    taken.add(key)
            else:
                earlier.append(route)
        self._seen, self._index = seen, index


def _shadowed(earlier: list[Route], method: str, path: str) -> bool:
    return any(route.path_regex.match(path) and (not route.methods or method in route.methods) for route in earlier)
