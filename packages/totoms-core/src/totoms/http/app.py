"""The FastAPI app of a microservice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from totoms.declaration.api import APIConfiguration
from totoms.declaration.logging import LogConfiguration
from totoms.environment import TotoEnvironment, for_development, implementation
from totoms.health import AWAY, OK
from totoms.http.access import Access, Decisions
from totoms.http.announcements import announce
from totoms.http.context import Runtime
from totoms.http.cors import CORS
from totoms.http.documentation import add_documentation, assets
from totoms.http.endpoints import add_declared, check_access
from totoms.http.gate import Gate
from totoms.http.lifespan import Lifecycle, serve_lifespan
from totoms.http.middleware import Edge
from totoms.http.overlaps import check_overlaps
from totoms.http.request_log import RequestLog
from totoms.http.responses import ERROR_SCHEMA, install, problem
from totoms.http.routes import DelegateRoute, Push, PushRoute
from totoms.http.shortcut import Shortcut
from totoms.messages.push_request import EVENTS_PATH
from totoms.storage.storage import CloudStorage
from totoms.threads import delegate_pool, delegate_threads, run_in_thread


class TotoAPI(FastAPI):
    """A FastAPI app inside the `Edge`, with the `Gate` between its middleware and its router.

    Args:
        runtime: The microservice.
        api: The endpoints and rules.
        log: What the log shows of requests.
        information: What OpenAPI says about the service: FastAPI's ``version`` and ``description``.

    Attributes:
        decisions: The access to each route.
        lifecycle: The service's callbacks for start and stop.
        shared: The state from the lifespan, for servers that do not pass it on.
    """

    def __init__(
        self, runtime: Runtime, api: APIConfiguration, log: LogConfiguration, information: Mapping[str, str]
    ) -> None:
        files = assets()
        options: dict[str, Any] = {**information, **({"docs_url": None, "redoc_url": None} if files else {})}
        super().__init__(title=runtime.service_name, **options)
        if files:
            add_documentation(self, files)
        self._local = for_development(runtime.environment)
        self.router.route_class = DelegateRoute
        self.state.totoms = runtime
        self.state.under_server = False
        self.decisions = Decisions(self.router, runtime.config, api.public_routes)
        open_docs = self._local if api.docs is None else api.docs
        self.decisions.preset(self.router.routes, Access.PUBLIC if open_docs else Access.CLOSED)
        self.lifecycle: Lifecycle | None = None
        self.shared: dict[str, Any] = {}
        self._runtime = runtime
        self._gate = Gate(self.router, self.decisions, runtime)
        self._shortcut = Shortcut(self, self._gate)
        self._edge = Edge(
            self._serve_by_fastapi,
            runtime,
            lambda: self.router.routes,
            shortcut=self._shortcut,
            cors=CORS(api.cors) if api.cors is not None else None,
            log=RequestLog(log),
            max_body_bytes=api.max_body_bytes,
            local=self._local,
        )
        self._sealed = False
        self._threads = delegate_pool(api.max_threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        delegate_threads.set(self._threads)
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
            return
        if not self._sealed:
            self.seal()
        if self.shared:
            scope["state"] = {**scope.get("state", {}), **self.shared}
        await self._edge.serve(scope, receive, send)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.lifecycle is None:
            await super().__call__(scope, receive, send)
        else:
            self.state.under_server = True
            await serve_lifespan(super().__call__, self.lifecycle, scope, receive, send)

    async def _serve_by_fastapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)

    def seal(self) -> None:
        """Decide the access to each route, once. Routes that are added later are closed.

        Raises:
            ConfigurationError: `is_path_excluded` failed or did not return a bool, or the app's router was replaced.
        """
        if not self._sealed:
            self.decisions.check_router(self.router)
            decided = self.decisions.decide()
            self._sealed = True
            announce(decided, self._runtime.logger, self.decisions.unused())

    def openapi(self) -> dict[str, Any]:
        """Return FastAPI's OpenAPI document with the schema of error bodies."""
        document = super().openapi()
        document.setdefault("components", {}).setdefault("schemas", {})["ErrorBody"] = ERROR_SCHEMA
        return document

    def build_middleware_stack(self) -> ASGIApp:
        """Return FastAPI's middleware stack with the gate around the router. Called once, before the first request.

        Raises:
            ConfigurationError: The app's router was replaced.
        """
        router = self.router
        self.decisions.check_router(router)
        self._shortcut.take_handlers()
        self.router = self._gate  # type: ignore[assignment]
        try:
            return super().build_middleware_stack()
        finally:
            self.router = router


def create_app(
    runtime: Runtime,
    api: APIConfiguration,
    base_path: str = "",
    *,
    push: Push | None = None,
    max_push_bytes: int = 0,
    log: LogConfiguration | None = None,
    information: Mapping[str, str] = MappingProxyType({}),
) -> TotoAPI:
    """Return the app of a microservice.

    Args:
        runtime: The microservice.
        api: Its endpoints and rules.
        base_path: The prefix of every endpoint, except ``/``, ``/health`` and ``/ready``.
        push: The handler of ``POST {base_path}/events`` and of its ``OPTIONS`` handshake. It authenticates its callers
            itself.
        max_push_bytes: The limit in bytes for the body of a push; 0 for the limit of other requests.
        log: What the log shows of requests; None for the default.
        information: See `TotoAPI`.

    Raises:
        ConfigurationError: The path of an endpoint is taken, a delegate is not decorated, overlapping paths differ in
            who may call them, or there are closed endpoints but no token verifier.
    """
    app = TotoAPI(runtime, api, log or LogConfiguration(), information)
    install(app)
    own = len(app.routes)
    _add_status(app, runtime, information.get("version", ""))
    if push is not None:
        limit = max_push_bytes or api.max_body_bytes
        app.router.routes += [PushRoute(base_path + EVENTS_PATH, push, method, limit) for method in ("POST", "OPTIONS")]
    if path := getattr(runtime.environment.hyperscaler_configuration, "signed_urls_path", ""):
        answer = partial(_answer_signed, environment=runtime.environment)
        for route_path in dict.fromkeys((path, base_path + path)):  # SERVICE_BASE_URL may include the base path
            app.add_route(route_path, answer, methods=["GET", "PUT"], include_in_schema=False)
    app.decisions.preset(app.routes[own:], Access.OWN)
    add_declared(app, api, base_path)
    decided = app.decisions.decide()
    check_access(decided, runtime.authenticator)
    check_overlaps(decided, runtime.logger)
    announce(decided, runtime.logger)
    return app


async def _answer_signed(request: Request, environment: TotoEnvironment) -> Response:
    # In a thread: the first call imports a module.
    storage: type[CloudStorage] = await run_in_thread(implementation, CloudStorage, environment)
    return await storage._answer_signed(request, environment)


def _add_status(app: FastAPI, runtime: Runtime, version: str) -> None:
    name, began = runtime.service_name, time.monotonic()
    alive = {"status": "ok", "apiName": name, "message": "Service is running"}

    async def root(_request: Request) -> Response:
        return JSONResponse(alive)

    async def health(_request: Request) -> Response:
        backend, uptime = runtime.environment.hyperscaler, int(time.monotonic() - began)
        return JSONResponse({**alive, "name": name, "version": version, "uptime": uptime, "backend": backend})

    async def ready(_request: Request) -> Response:
        if runtime.state != "ready":
            return problem(503, f"The service is {runtime.state}", headers={"retry-after": "1"})
        readiness = runtime.readiness
        checks, subscriptions = await readiness.results(), readiness.subscriptions()
        shown: dict[str, Any] = {"checks": checks} if checks else {}
        if subscriptions:
            shown["subscriptions"] = subscriptions
        failed = [name for name, result in checks.items() if result != OK]
        if readiness.needs_subscriptions:
            failed += [name for name, shows in subscriptions.items() if shows["state"] == AWAY]
        if failed:
            return problem(503, f"Not ready: {', '.join(failed)}", headers={"retry-after": "1"}, **shown)
        if awaited := dict.fromkeys(runtime.awaited_topics, "awaiting subscription"):
            shown["topics"] = awaited
        return JSONResponse({"status": "ready", **shown})

    app.add_route("/", root, include_in_schema=False)
    app.add_route("/health", health, include_in_schema=False)
    app.add_route("/ready", ready, include_in_schema=False)
