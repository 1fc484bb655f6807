"""The FastAPI app of a microservice."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from totoms.configuration import APIConfiguration, APIEndpoint
from totoms.cors import CORS
from totoms.delegate import delegate_of
from totoms.edge import Edge
from totoms.environment import TotoEnvironment, implementation
from totoms.errors import ConfigurationError
from totoms.execution import Runtime
from totoms.problems import ERROR_RESPONSES, ERROR_SCHEMA, install, problem
from totoms.push import EVENTS_PATH
from totoms.route import DelegateRoute, Push, PushRoute
from totoms.storage import CloudStorage
from totoms.threads import run_in_thread

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_TELEMETRY_CHECK: Final = 1.0
"""Seconds for which the answer that nobody traces is believed."""


class TotoAPI(FastAPI):
    """A FastAPI app with our edge around all of its middleware, the user's included."""

    def __init__(self, runtime: Runtime, api: APIConfiguration) -> None:
        super().__init__(title=runtime.service_name)
        self.router.route_class = DelegateRoute
        self.state.totoms = runtime
        self._runtime = runtime
        self._api = api
        self._untraced_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: FastAPI's way, with its look at the telemetry's settings (3 µs) once a second."""
        stack = self.middleware_stack
        if scope["type"] == "http" and stack is not None and not self.root_path:
            now = time.monotonic()
            if now < self._untraced_until:
                scope["app"] = self
                await stack(scope, receive, send)
                return
            telemetry = getattr(self, "_native_telemetry", None)
            if telemetry is None or not telemetry.enabled():
                self._untraced_until = now + _TELEMETRY_CHECK
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document: FastAPI's, with the one body of all errors."""
        document = super().openapi()
        document.setdefault("components", {}).setdefault("schemas", {})["ErrorBody"] = ERROR_SCHEMA
        return document

    def build_middleware_stack(self) -> ASGIApp:
        """Return FastAPI's stack inside our edge. Called by FastAPI, once, on the first request."""
        host = getattr(self._runtime.environment.hyperscaler_configuration, "default_host", None)
        return Edge(
            super().build_middleware_stack(),
            self._runtime,
            lambda: self.router.routes,
            cors=CORS(self._api.cors) if self._api.cors is not None else None,
            max_body_bytes=self._api.max_body_bytes,
            local=host in _LOOPBACK,
            direct=not self.user_middleware,
        )


def create_app(runtime: Runtime, api: APIConfiguration, base_path: str = "", *, push: Push | None = None) -> FastAPI:
    """Make the app of a microservice.

    Args:
        runtime: The microservice.
        api: Its endpoints and rules.
        base_path: Prefix of every endpoint; not of ``/``, ``/health`` and ``/ready``.
        push: Answers ``POST {base_path}/events``, and the handshake by ``OPTIONS``. It verifies its callers itself.

    Raises:
        ConfigurationError: An endpoint's path is taken, its delegate is not decorated, or no caller could be verified.
    """
    app = TotoAPI(runtime, api)
    install(app)
    _add_status(app, runtime)
    if push is not None:
        app.router.routes += [PushRoute(base_path + EVENTS_PATH, push, method) for method in ("POST", "OPTIONS")]
    if path := getattr(runtime.environment.hyperscaler_configuration, "signed_urls_path", ""):
        answer = partial(_answer_signed, environment=runtime.environment)
        app.add_route(path, answer, methods=["GET", "PUT"], include_in_schema=False)
    open_paths = []
    for endpoint in api.api_endpoints:
        path = base_path + endpoint.path or "/"
        _refuse_collision(app, endpoint, path)
        if runtime.config.is_path_excluded(path):
            open_paths.append(f"{endpoint.method} {path}")
        elif not runtime.authenticator:
            raise ConfigurationError(
                f"There is no token verifier for {endpoint.method} {path}: set the secret 'jwt-signing-key' or "
                "'toto-expected-audience', or APIConfiguration(oidc_issuers=[...])."
            )
        try:
            app.add_api_route(path, endpoint.delegate, methods=[endpoint.method], responses=dict(ERROR_RESPONSES))
        except Exception as error:  # FastAPI raises many kinds for a signature or a path it cannot serve
            raise ConfigurationError(f"{endpoint.method} {path} cannot be served: {error}") from error
    if open_paths:
        runtime.logger.log("init", f"Open to callers without a token: {', '.join(open_paths)}.", "WARNING")
    return app


async def _answer_signed(request: Request, environment: TotoEnvironment) -> Response:
    # In a thread: the first time it loads a module.
    storage: type[CloudStorage] = await run_in_thread(implementation, CloudStorage, environment)
    return await storage._answer_signed(request, environment)


def _add_status(app: FastAPI, runtime: Runtime) -> None:
    health = {"status": "ok", "apiName": runtime.service_name, "message": "Service is running"}

    async def alive(_request: Request) -> Response:
        return JSONResponse(health)

    async def ready(_request: Request) -> Response:
        if runtime.state == "ready":
            return JSONResponse({"status": "ready"})
        return problem(503, f"The service is {runtime.state}", headers={"retry-after": "1"})

    app.add_route("/", alive, include_in_schema=False)
    app.add_route("/health", alive, include_in_schema=False)
    app.add_route("/ready", ready, include_in_schema=False)


def _refuse_collision(app: FastAPI, endpoint: APIEndpoint, path: str) -> None:
    if delegate_of(endpoint.delegate) is None:
        raise ConfigurationError(f"{endpoint.method} {path}: the delegate is not decorated with @toto_delegate.")
    for route in app.routes:
        if getattr(route, "path", None) == path and endpoint.method in (getattr(route, "methods", None) or ()):
            raise ConfigurationError(f"{endpoint.method} {path} is taken by the service itself: choose another path.")
