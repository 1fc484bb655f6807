"""The way past FastAPI's middleware and router for delegates, as long as no middleware is installed.

FastAPI's own middleware costs twice as much as everything else that a small delegate needs. For a delegate with only
the three parameters it does nothing but answer exceptions, which is done here by the same handlers. With middleware of
the user's, an agent that patches FastAPI or Starlette (Sentry) or wraps the stack (OpenTelemetry), or FastAPI's
telemetry, every request goes through FastAPI. `python -m benchmarks.short_cuts` measures the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import fastapi.applications
import starlette.applications
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from totoms.http.context import Call
from totoms.http.gate import Gate
from totoms.http.private_api import EXCEPTION_HANDLERS, TELEMETRY, innermost, is_stock, is_traced, runs_routes_only
from totoms.http.routes import DelegateRoute, PushRoute, RouteIndex

_TELEMETRY_CHECK: Final = 1.0
"""Seconds between checks whether telemetry was turned on: a check costs a quarter of a small request."""
_STOCK_MIDDLEWARE: Final = ("fastapi.", "starlette.middleware.errors", "starlette.middleware.exceptions")


class Shortcut:
    """Finds the route of a request once, authenticates the caller once, and calls the delegate.

    Args:
        app: The app.
        gate: Authenticates.
    """

    def __init__(self, app: FastAPI, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._index = RouteIndex(lambda: app.router.routes)
        self._stack: ASGIApp | None = None
        self._stock_call: Callable[..., Any] | None = None
        self._open_until = 0.0
        self._by_class: dict[Any, ExceptionHandler] = {}
        self._by_status: dict[Any, ExceptionHandler] = {}
        self._unexpected: ExceptionHandler | None = None

    def take_handlers(self) -> None:
        """Take the app's exception handlers, as FastAPI does when it builds its middleware: later ones do not count."""
        for key, handler in self._app.exception_handlers.items():
            if key in (500, Exception):
                self._unexpected = handler
            elif isinstance(key, int):
                self._by_status[key] = handler
            else:
                self._by_class[key] = handler

    def find(self, scope: Scope) -> DelegateRoute | PushRoute | None:
        """Return the route to call for an HTTP request, set in `scope`; None if FastAPI must serve it."""
        if (
            self._app.middleware_stack is not self._stack
            or Starlette.__call__ is not self._stock_call
            or time.monotonic() >= self._open_until
        ) and not self._check():
            return None
        return None if TELEMETRY in scope else self._index.find(scope)

    async def serve(self, route: DelegateRoute | PushRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Args:
            route: The result of `find`.
            scope: The ASGI scope.
            receive: ASGI's receive.
            send: ASGI's send.

        Raises:
            Exception: An exception for which the app has no handler but the one for unexpected errors, which has
                responded; or any exception after the start of the response.
        """
        scope["app"] = self._app
        scope[EXCEPTION_HANDLERS] = self._by_class, self._by_status
        call: Call = scope["totoms"]
        try:
            if not self._gate.recognize(scope, call) and isinstance(route, DelegateRoute):
                await self._gate.authenticate(scope, call, route)
            await route.app(scope, receive, send)
        except Exception as error:
            if call.status:
                raise
            await self._respond(error)(scope, receive, send)

    def _check(self) -> bool:
        """Return whether FastAPI has no middleware of the user's to run before the delegates."""
        app = self._app
        self._stack = None
        if app.user_middleware or app.root_path or not runs_routes_only(app.router):
            return False
        if not is_stock(Starlette.__call__, starlette.applications):
            return False
        if not is_stock(FastAPI.__call__, fastapi.applications):
            return False
        if app.middleware_stack is None:
            app.middleware_stack = app.build_middleware_stack()
        if not isinstance(innermost(app.middleware_stack, _STOCK_MIDDLEWARE), Gate) or is_traced(app):
            return False
        self._stack, self._stock_call = app.middleware_stack, Starlette.__call__
        self._open_until = time.monotonic() + _TELEMETRY_CHECK
        return True

    def _respond(self, error: Exception) -> ASGIApp:
        """Return an app that responds to an exception as FastAPI's middleware does."""

        async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise error

        debug = self._app.debug
        handled = ExceptionMiddleware(fail, {**self._by_class, **self._by_status}, debug)
        return ServerErrorMiddleware(handled, self._unexpected, debug)
