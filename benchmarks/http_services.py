"""The services that http_requests.py measures: the same two endpoints, each written the usual way of its framework.

``python http_services.py VARIANT PORT`` serves one, on one worker with uvloop and httptools. With ``app`` in place of
the port it measures the app alone, without sockets, and prints microseconds per request.
"""

import asyncio
import itertools
import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated, Any

KEY = "a signing key for benchmarks only, long enough"
CID = "0123456789abcdef0123456789abcdef"
ITEM = {"status": "ok", "items": [1, 2, 3], "name": "toto"}
ECHO = {"data": "x" * 1000}
GET_PATH, POST_PATH = "/bench/item", "/bench/echo"
ROUTES = int(os.environ.get("BENCH_ROUTES", "0"))


def plain() -> Any:
    """FastAPI, without authentication, correlation id or log."""
    from fastapi import FastAPI, Request

    app = FastAPI()

    async def item():  # type: ignore[no-untyped-def]
        return ITEM

    async def echo(request: Request):  # type: ignore[no-untyped-def]
        return await request.json()

    for number in range(ROUTES):
        app.add_api_route(f"/bench/other{number}", item)
    app.add_api_route(GET_PATH, item)
    app.add_api_route(POST_PATH, echo, methods=["POST"])
    return app


def typed() -> Any:
    """FastAPI as above, with types, so that pydantic writes the answer."""
    from fastapi import FastAPI

    app = FastAPI()

    async def item() -> dict[str, Any]:
        return ITEM

    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    app.add_api_route(GET_PATH, item)
    app.add_api_route(POST_PATH, echo, methods=["POST"])
    return app


def by_hand() -> Any:
    """FastAPI with what a delegate has, done by hand: token, correlation id, contexts, a log line, CORS."""
    import logging
    import uuid

    import jwt
    from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
    from fastapi.middleware.cors import CORSMiddleware

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logger = logging.getLogger("by_hand")
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])

    class Context:
        def __init__(self, user: str, cid: str) -> None:
            self.user, self.cid = user, cid

    async def correlation_id(
        request: Request, response: Response, x_correlation_id: Annotated[str | None, Header()] = None
    ) -> str:
        cid = x_correlation_id or uuid.uuid4().hex
        response.headers["x-correlation-id"] = cid
        logger.info("[%s] %s %s", cid, request.method, request.url.path)
        return cid

    async def caller(
        cid: Annotated[str, Depends(correlation_id)], authorization: Annotated[str | None, Header()] = None
    ) -> Context:
        if not authorization or not authorization.startswith("Bearer "):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        try:
            claims = jwt.decode(authorization[7:], KEY, algorithms=["HS256"], options={"require": ["exp"]})
        except jwt.InvalidTokenError as error:
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"}) from error
        return Context(claims["user"], cid)

    async def item(context: Annotated[Context, Depends(caller)]):  # type: ignore[no-untyped-def]
        return ITEM

    async def echo(request: Request, context: Annotated[Context, Depends(caller)]):  # type: ignore[no-untyped-def]
        return await request.json()

    app.add_api_route(GET_PATH, item)
    app.add_api_route(POST_PATH, echo, methods=["POST"])
    return app


def totoms1() -> Any:
    """Version 1.5.0, in an environment of its own; its secrets come from a stand-in for AWS."""
    from fastapi import Request
    from totoms.model.ExecutionContext import ExecutionContext
    from totoms.model.TotoAPIEndpoint import APIEndpoint
    from totoms.model.TotoConfig import TotoControllerConfig
    from totoms.model.TotoEnvironment import TotoEnvironment
    from totoms.model.UserContext import UserContext
    from totoms.TotoDelegateDecorator import toto_delegate
    from totoms.TotoMicroservice import (
        APIConfiguration,
        TotoMicroservice,
        TotoMicroserviceConfiguration,
        determine_environment,
    )

    class Config(TotoControllerConfig):
        def get_mongo_secret_names(self) -> dict[str, str] | None:
            return None

        def get_props(self) -> dict[str, Any]:
            return {}

    @toto_delegate
    async def item(request: Request, user_context: UserContext, exec_context: ExecutionContext):  # type: ignore[no-untyped-def]
        return ITEM

    @toto_delegate
    async def echo(request: Request, user_context: UserContext, exec_context: ExecutionContext):  # type: ignore[no-untyped-def]
        return await request.json()

    configuration = TotoMicroserviceConfiguration(
        service_name="bench",
        base_path="/bench",
        environment=TotoEnvironment(hyperscaler="aws", hyperscaler_configuration=determine_environment()),
        custom_config=Config,
        api_configuration=APIConfiguration(
            api_endpoints=[APIEndpoint("GET", "/item", item), APIEndpoint("POST", "/echo", echo)]
        ),
    )
    return asyncio.run(TotoMicroservice.init(configuration)).api_controller.app


def _totoms() -> Any:
    """This project, everything on, on the local backend."""
    from fastapi import Request

    from totoms import (
        APIConfiguration,
        APIEndpoint,
        ExecutionContext,
        TotoEnvironment,
        TotoMicroserviceConfiguration,
        UserContext,
        toto_delegate,
    )

    @toto_delegate
    async def item(request: Request, user_context: UserContext, exec_context: ExecutionContext):  # type: ignore[no-untyped-def]
        return ITEM

    @toto_delegate
    async def echo(request: Request, user_context: UserContext, exec_context: ExecutionContext):  # type: ignore[no-untyped-def]
        return await request.json()

    endpoints = [APIEndpoint("GET", f"/other{number}", item) for number in range(ROUTES)]
    endpoints += [APIEndpoint("GET", "/item", item), APIEndpoint("POST", "/echo", echo)]
    return TotoMicroserviceConfiguration(
        service_name="bench",
        base_path="/bench",
        environment=TotoEnvironment("local"),
        api_configuration=APIConfiguration(api_endpoints=endpoints),
    )


def totoms() -> Any:
    """The app of this project's service."""
    from totoms import TotoMicroservice

    return asyncio.run(TotoMicroservice.create(_totoms())).app


VARIANTS = {made.__name__: made for made in (plain, typed, by_hand, totoms1, totoms)}


def serve(variant: str, port: int) -> None:
    """Serve a variant on one worker, with the event loop and the parser in C."""
    import uvicorn
    import uvloop

    if variant == "totoms":
        uvloop.run(_start_totoms(port))
        return
    app = VARIANTS[variant]()
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


async def _start_totoms(port: int) -> None:
    from totoms import TotoMicroservice

    await (await TotoMicroservice.create(_totoms())).start(port)


async def app_alone(app: Any, tokens: list[str], requests: int = 2000, rounds: int = 5) -> dict[str, float]:
    """Return microseconds per request, without sockets: the median of rounds, less an empty app's."""
    body = json.dumps(ECHO).encode()

    async def empty(_scope: Any, _receive: Any, _send: Any) -> None:
        return None

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise SystemExit(f"status {message['status']}")

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    def scope(method: str, path: str, token: str) -> dict[str, Any]:
        # totoms 1.5.0 insists on a correlation id from the caller; so all get one.
        headers = [(b"host", b"127.0.0.1:8000"), (b"authorization", b"Bearer " + token.encode())]
        headers.append((b"x-correlation-id", CID.encode()))
        if method == "POST":
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 5),
            "scheme": "http",
            "root_path": "",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "state": {},
        }

    async def per_request(app: Any, method: str, path: str) -> float:
        scopes = [scope(method, path, next(supply)) for _ in range(requests)]
        begun = time.perf_counter()
        for one in scopes:
            await app(one, receive, send)
        return (time.perf_counter() - begun) / requests * 1e6

    supply = itertools.cycle(tokens)
    found: dict[str, float] = {}
    for method, path in (("GET", GET_PATH), ("POST", POST_PATH)):
        await per_request(app, method, path)
        times = [await per_request(app, method, path) - await per_request(empty, method, path) for _ in range(rounds)]
        found[method] = statistics.median(times)
    return found


if __name__ == "__main__":
    if sys.argv[2] == "app":
        known = Path(os.environ["BENCH_TOKENS"]).read_text().split()
        print(json.dumps(asyncio.run(app_alone(VARIANTS[sys.argv[1]](), known))), file=sys.stderr)
    else:
        serve(sys.argv[1], int(sys.argv[2]))
