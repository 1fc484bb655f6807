"""Access: which routes are open to callers without a token. All other routes are closed.

The access to each route is decided once, at start, by its declaration and its path template. A request gets the access
of the route that it reaches, so the path as it was sent decides nothing, and a route that is added or changed later is
closed. A mount has one access for everything in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import Scope

from totoms.errors import ConfigurationError
from totoms.http import private_api
from totoms.http.exclusions import Exclusions

if TYPE_CHECKING:
    from totoms.controller_config import TotoControllerConfig

_MARK: Final = "__toto_public__"
_WEBSOCKET: Final = "WEBSOCKET"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_Target = TypeVar("_Target", bound=BaseRoute | Router)
_Key = tuple[int, str, str]


class Access(Enum):
    """What a request without a token gets.

    Attributes:
        CLOSED: 401.
        PUBLIC: The response of the route, with an empty `UserContext`. A token, if sent, must be valid.
        OWN: The response of the route, which ignores tokens and has rules of its own (``/health``, pushes, signed
            URLs).
        NOTHING: FastAPI's 404, 405 or redirect: no route serves the request.
    """

    CLOSED = 0
    PUBLIC = 1
    OWN = 2
    NOTHING = 3


class Decision(NamedTuple):
    """The access to one method of one route.

    Attributes:
        route: The route.
        path: Its path template, with all prefixes.
        method: The method, or "WEBSOCKET".
        access: The access.
    """

    route: BaseRoute
    path: str
    method: str
    access: Access


def public(target: _Target) -> _Target:
    """Open a route, a router or a mount to callers without a token, and return it.

    ::

        app.router.routes.append(public(Mount("/static", app=StaticFiles(directory="static"))))
        app.include_router(public(router))

    Args:
        target: The route, router or mount. A router or a mount is opened with everything in it. Call this before the
            service starts.

    Raises:
        ConfigurationError: `target` is something else.
    """
    if not isinstance(target, (BaseRoute, Router)):
        raise ConfigurationError(f"public() takes a route, a router or a mount, not a {type(target).__name__}.")
    setattr(target, _MARK, True)
    return target


class Decisions:
    """The access to the routes of one app.

    Args:
        router: The app's router.
        config: The service's configuration, whose `is_path_excluded` may open routes.
        public_routes: Patterns of routes to open: ``"GET /x"``, ``"/x"``, ``"/static/*"``.

    Raises:
        ConfigurationError: `is_path_excluded` is a coroutine function.
    """

    def __init__(self, router: Router, config: TotoControllerConfig, public_routes: Sequence[str] = ()) -> None:
        self._router = router
        self._patterns = dict.fromkeys(public_routes, False)
        self._exclusions = Exclusions(config)
        # By the route's id, path and method. A decision keeps its route alive, so that the id stays unique.
        self._decided: dict[_Key, Decision] = {}
        self._preset: dict[int, tuple[BaseRoute, Access]] = {}

    def preset(self, routes: Iterable[BaseRoute], access: Access) -> None:
        """Set the access to routes of totoms or FastAPI. `public_routes` can still open a closed one."""
        self._preset.update((id(route), (route, access)) for route in routes)

    def decide(self) -> list[Decision]:
        """Decide for all routes without a decision, and return the new decisions.

        Raises:
            ConfigurationError: `is_path_excluded` failed or did not return a bool, or `public` was given the app's
                router.
        """
        if hasattr(self._router, _MARK):
            raise ConfigurationError("public() was called with the app's own router, which would open every route.")
        new = []
        for route, path, marked in self._entries(self._router, marked=False):
            for method in _methods(route):
                key = (id(route), path, method)
                if key not in self._decided:
                    decision = Decision(route, path, method, self._access_to(route, path, method, marked))
                    self._decided[key] = decision
                    new.append(decision)
        return new

    def known(self) -> list[Decision]:
        """Return all decisions, in the order of the routes."""
        return list(self._decided.values())

    def unused(self) -> list[str]:
        """Return the patterns of `public_routes` that match no route."""
        return [pattern for pattern, used in self._patterns.items() if not used]

    def of(self, route: BaseRoute, path: str, method: str) -> Access:
        """Return the access to a method of a route; CLOSED without a decision."""
        decision = self._decided.get((id(route), path, method))
        return Access.CLOSED if decision is None else decision.access

    def find(self, scope: Scope) -> Access:
        """Return the access to the route that serves a request, found in the router's order."""
        method = scope["method"] if scope["type"] == "http" else _WEBSOCKET
        match, leaf, path = self._reached(scope)
        if match is Match.FULL:
            return Access.CLOSED if leaf is None else self.of(leaf, path, method)
        if match is Match.PARTIAL:
            return self._unserved() if private_api.only_rejects_methods(leaf) else Access.CLOSED
        match, fallback = private_api.match_fallbacks(self._router, scope)
        if fallback is not None and match is not Match.NONE:
            return self.of(fallback, "", method)
        return self._unserved()

    def template(self, scope: Scope, path: str, root_path: str) -> str:
        """Return the path template of the route that served a request, for the log; "" if no route matched.

        Args:
            scope: The scope, as the router has left it.
            path: The path, as the router found it.
            root_path: The root path, as the router found it.
        """
        served = scope.get("route")
        if served is not None and any(served is route for route in self._router.routes):
            return _template(served, getattr(served, "path", ""))
        before = {**scope, "path": path, "root_path": root_path}
        before.pop("fastapi", None)  # what FastAPI's included routers have noted there
        try:
            return self._reached(before)[2]
        except Exception:  # a converter of the user's failed, as it did before
            return ""

    def _reached(self, scope: Scope) -> tuple[Match, BaseRoute | None, str]:
        """Return how a request matches, with the route that serves it and that route's path template."""
        partial: BaseRoute | None = None
        for route in self._router.routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return Match.FULL, *_leaf(route, scope)
            if match is Match.PARTIAL and partial is None:
                partial = route
        return (Match.NONE, None, "") if partial is None else (Match.PARTIAL, *_leaf(partial, scope))

    def _unserved(self) -> Access:
        """Return the access where no route matches: closed if the user's code handles such requests."""
        return Access.NOTHING if private_api.only_responds_not_found(self._router) else Access.CLOSED

    def check_router(self, router: object) -> None:
        """Check that `router` is still the app's first router, for which access was decided.

        Raises:
            ConfigurationError: The app's router was replaced.
        """
        if router is not self._router:
            raise ConfigurationError("The app's router was replaced: add routes to it, with include_router or mount.")

    def _access_to(self, route: BaseRoute, path: str, method: str, marked: bool) -> Access:
        _, preset = self._preset.get(id(route), (route, None))
        if preset in (Access.OWN, Access.PUBLIC):
            return preset
        for pattern in self._patterns:
            if _matches(pattern, path, method):
                self._patterns[pattern] = marked = True
        if not marked and preset is None and isinstance(route, Route):
            marked = self._exclusions.excludes(path, _excluded_as(route, method))
        return Access.PUBLIC if marked else Access.CLOSED

    def _entries(self, router: Router, *, marked: bool) -> Iterator[tuple[BaseRoute, str, bool]]:
        """Yield each route that requests can reach, with its path template and whether it is marked as public."""
        for route in router.routes:
            here = marked or hasattr(route, _MARK)
            if private_api.is_included(route):
                yield from self._included(route, marked=here)
            else:
                yield route, _template(route, getattr(route, "path", "")), here
        for route in private_api.fallbacks_of(router):
            yield route, "", marked

    def _included(self, included: BaseRoute, *, marked: bool) -> Iterator[tuple[BaseRoute, str, bool]]:
        router = private_api.router_of(included)
        marked = marked or hasattr(router, _MARK)
        for route, path in private_api.routes_of(included):
            here = marked or hasattr(route, _MARK)
            if private_api.is_included(route):
                yield from self._included(route, marked=here)
            else:
                yield route, _template(route, path), here
        for route in private_api.fallbacks_of(router):
            yield route, "", marked


def _leaf(route: BaseRoute | None, scope: Scope) -> tuple[BaseRoute | None, str]:
    path = getattr(route, "path", "")
    while private_api.is_included(route):
        _, route, path = private_api.match_included(route, scope)
    return route, "" if route is None else _template(route, path)


def _template(route: BaseRoute, path: str) -> str:
    return f"{path}/*" if isinstance(route, Mount) else path


def _methods(route: BaseRoute) -> Sequence[str]:
    if isinstance(route, Route):
        return sorted(route.methods or _METHODS)
    return (_WEBSOCKET,) if isinstance(route, WebSocketRoute) else (*_METHODS, _WEBSOCKET)


def _excluded_as(route: Route, method: str) -> str:
    """Return the method to ask `is_path_excluded` about: GET for HEAD (RFC 9110, section 9.3.2)."""
    answers_get = "GET" in (route.methods or _METHODS) or getattr(route, "head_of_get", False)
    return "GET" if method == "HEAD" and answers_get else method


def _matches(pattern: str, path: str, method: str) -> bool:
    wanted, _, template = pattern.rpartition(" ")
    if wanted and wanted != method and (wanted, method) != ("GET", "HEAD"):
        return False
    return path.startswith(template[:-1]) if template.endswith("/*") else path == template
