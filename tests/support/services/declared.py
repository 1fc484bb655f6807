"""A service with all that the HTTP side of a declaration offers; run with ``start`` or ``run``, or `application`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from totoms import (
    APIConfiguration,
    APIEndpoint,
    CORSConfiguration,
    ExecutionContext,
    Requires,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    public,
    toto_delegate,
)


class PostNotFound(Exception):
    """A post that does not exist."""


class Post(BaseModel):
    slug: str


async def not_found(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"no": "post"}, 404, {"x-handled": "yes"})


class Marking:
    """Adds its name to a header of the response, and the order in which middlewares ran to the scope."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marking(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-marked", self.name.encode())]
            await send(message)

        scope["marks"] = [*scope.get("marks", ()), self.name]
        await self.app(scope, receive, marking)


ran: list[str] = []


async def dependency(request: Request) -> None:
    ran.append(request.url.path)


@toto_delegate
async def create(request: Request, user_context: UserContext, exec_context: ExecutionContext, post: Post) -> Post:
    return post


@toto_delegate
async def read(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    if request.path_params["slug"] == "none":
        raise PostNotFound
    return {"slug": request.path_params["slug"], "marks": request.scope["marks"], "process": os.getpid()}


@toto_delegate
def remove(request: Request, user_context: UserContext, exec_context: ExecutionContext, slug: str) -> None:
    """Remove a post."""


def router() -> APIRouter:
    made = APIRouter(prefix="/admin", tags=["admin"])

    @made.get("/missing")
    async def missing() -> None:
        raise PostNotFound

    made.add_api_route("/who", read, methods=["POST"])
    return made


def open_router() -> APIRouter:
    made = APIRouter(prefix="/open")
    made.add_api_route("/status", lambda: {"open": True})
    return public(made)


def configuration() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="declared",
        base_path="/blog",
        version="1.4.0",
        description="Posts and their **digest**.",
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(
                    method="POST",
                    path="/posts",
                    delegate=create,
                    status_code=201,
                    tags=["posts"],
                    summary="Write a post",
                    description="Writes it.",
                    responses={409: {"description": "It exists."}},
                    dependencies=[Depends(dependency)],
                    operation_id="createPost",
                    requires=Requires(scopes={"posts:write"}),
                ),
                APIEndpoint(method="GET", path="/posts/{slug}", delegate=read, public=True),
                APIEndpoint(
                    method="DELETE",
                    path="/posts/{slug}",
                    delegate=remove,
                    status_code=204,
                    deprecated=True,
                    requires=Requires(any_of=[Requires(roles={"admin"}), Requires(roles={"editor"})]),
                ),
                APIEndpoint(
                    method="GET", path="/secret/{slug}", delegate=read, include_in_schema=False, response_model=None
                ),
            ],
            cors=CORSConfiguration(expose_headers=["ETag", "x-marked"]),
            docs=True,
            routers=[router(), open_router()],
            middleware=[Middleware(Marking, name="first"), Middleware(Marking, name="second")],
            exception_handlers={PostNotFound: not_found},
        ),
    )


def application() -> ASGIApp:
    return TotoMicroservice.asgi(configuration())


if __name__ == "__main__":
    if sys.argv[1] == "run":
        TotoMicroservice.run(configuration(), port=0)
    else:

        async def serve() -> None:
            await (await TotoMicroservice.init(configuration())).start(port=0)

        asyncio.run(serve())
