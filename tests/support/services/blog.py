"""A small service for the lifecycle tests, started as a process: ``python blog.py``."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

from fastapi import Request
from starlette.types import ASGIApp

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    ServerConfiguration,
    TotoControllerConfig,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)


@toto_delegate
async def publish(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    data = await request.json()
    message = TotoMessage(type=data.get("type", "postCreated"), data=data)
    message_id = await exec_context.message_bus.publish_message(MessageDestination(topic="posts"), message)
    return {"messageId": message_id, "user": user_context.email}


@toto_delegate
async def slow(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    print("slow request begun", flush=True)
    await asyncio.sleep(float(request.query_params.get("seconds", "0.5")))
    return {"status": "done"}


@toto_delegate
def hang(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    print("hung request begun", flush=True)
    threading.Event().wait()
    return {"status": "never"}


class PostCreatedHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "postCreated"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        print(f"handler begun {message.data.get('title')}", flush=True)
        await asyncio.sleep(message.data.get("seconds", 0))
        if message.data.get("block"):
            time.sleep(message.data["block"])  # noqa: ASYNC251 - a handler that blocks the loop is what is tested
        print(f"handler done {message.data.get('title')} cid={message.cid}", flush=True)
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class HungHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "hangs"

    def process_message(self, message: TotoMessage) -> ProcessingResponse:  # type: ignore[override]
        assert message.delivery is not None
        print(f"handler hangs, attempt {message.delivery.attempt}", flush=True)
        threading.Event().wait()
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class Announced(TotoControllerConfig):
    async def close(self) -> None:
        print(f"closed by {os.getpid()}", flush=True)


class NeedsSecret(TotoControllerConfig):
    async def load(self) -> TotoControllerConfig:
        await super().load()
        await self.secrets_manager.get_secret_async("blog-api-key")
        return self


def configuration() -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        base_path="/blog",
        custom_config=NeedsSecret if os.environ.get("BLOG_NEEDS_SECRET") else Announced,
        shutdown_grace=float(os.environ.get("BLOG_GRACE", "10")),
        server=ServerConfiguration(shutdown_delay=float(os.environ.get("BLOG_DELAY", "0"))),
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="POST", path="/posts", delegate=publish),
                APIEndpoint(method="GET", path="/slow", delegate=slow),
                APIEndpoint(method="GET", path="/hang", delegate=hang),
            ]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts_topic_name")],
            message_handlers=[
                MessageBusHandlerConfig(handler_class=PostCreatedHandler),
                MessageBusHandlerConfig(handler_class=HungHandler),
            ],
            vanished_subscriptions="exit" if os.environ.get("BLOG_EXITS") else None,
        ),
    )


def app() -> ASGIApp:
    return TotoMicroservice.asgi(configuration())


async def main(port: int) -> None:
    microservice = await TotoMicroservice.init(configuration())
    await microservice.start(port=port)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if os.environ.get("BLOG_LOOP") == "asyncio":
        asyncio.run(main(port))
    else:
        TotoMicroservice.run(configuration(), port)
    print("start returned", flush=True)
