"""A whole service for the fault tests: HTTP in, messages through the bus, numbers out to a file.

``python service.py FILE [options]``; what was handled is noted in FILE as "number attempt message_id latency".

- ``POST /numbers`` publishes a number, or a poison; 200 says that the broker has it.
- ``PUT /files`` and ``GET /files`` write and read a file in storage.
- ``GET /large`` streams an answer of `LARGE` bytes.
- ``POST /count`` counts the bytes of a body, which it begins to read after some seconds.
- ``/echo`` is a WebSocket.
- ``GET /figures`` tells what the process saw of itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request, WebSocket
from starlette.responses import StreamingResponse

from totoms import (
    APIConfiguration,
    APIEndpoint,
    CloudStorage,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    RetryPolicy,
    TotoControllerConfig,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.local.messages import bus as local_bus
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.testing.stalls import StallMeter

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--delivery", default="pull")
parser.add_argument("--max-concurrency", type=int, default=16)
parser.add_argument("--max-attempts", type=int, default=1000)
parser.add_argument("--handler-seconds", type=float, default=0.0)
parser.add_argument("--block-seconds", type=float, default=0.0)
parser.add_argument("--tell", action="store_true", help="print a line when a handler begins")
parser.add_argument("--lease-seconds", type=float, default=2.0)
parser.add_argument("--grace", type=float, default=5.0)
parser.add_argument("--read-first", action="store_true", help="verify pushes after their bodies were read, as on SNS")
options = parser.parse_args()

FILE = os.open(options.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
NUMBERS = MessageDestination(topic="numbers")
LARGE = 50_000_000
PIECE = b"x" * 16_384
PAGE = os.sysconf("SC_PAGE_SIZE")
meter = StallMeter()
seen = {"at_work": 0, "most_at_work": 0, "handled": 0}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@toto_delegate
async def publish(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    asked = await request.json()
    message = TotoMessage(
        type="poison" if asked.get("poison") else "number", id=str(asked["number"]), data={"published": time.time()}
    )
    return {"messageId": await exec_context.message_bus.publish_message(NUMBERS, message)}


@toto_delegate
async def put_file(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    asked = await request.json()
    await CloudStorage("files").upload_bytes_async(asked["content"].encode(), asked["name"])
    return {"status": "kept"}


@toto_delegate
async def get_file(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, Any]:
    return {"content": await CloudStorage("files").get_file_content_async(request.query_params["name"])}


@toto_delegate
async def slow(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    await asyncio.sleep(float(request.query_params["seconds"]))
    return {"status": "done"}


@toto_delegate
async def large(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE // len(PIECE)):
            yield PIECE

    return StreamingResponse(pieces())


@toto_delegate
async def count(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, int]:
    await asyncio.sleep(float(request.query_params.get("seconds", "0")))
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {"size": size}


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@toto_delegate
async def figures(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, Any]:
    found = {**seen, "longest_stall": meter.longest, "resident_bytes": resident_bytes()}
    if "reset" in request.query_params:
        meter.longest = 0.0
    return found


class NumberHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "number"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        assert message.delivery is not None
        seen["at_work"] += 1
        seen["most_at_work"] = max(seen["most_at_work"], seen["at_work"])
        if options.tell:
            print(f"begun {message.id}", flush=True)
        try:
            time.sleep(options.block_seconds)  # noqa: ASYNC251 - a handler that blocks the loop is one of the faults
            if options.handler_seconds:
                await asyncio.sleep(options.handler_seconds)
        finally:
            seen["at_work"] -= 1
        latency = time.time() - message.data["published"]
        line = f"{message.id} {message.delivery.attempt} {message.delivery.message_id} {latency:.4f}\n"
        os.write(FILE, line.encode())
        seen["handled"] += 1
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class PoisonHandler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "poison"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.FAILED, error="poison")


class Metered(TotoControllerConfig):
    async def load(self) -> TotoControllerConfig:
        await meter.__aenter__()  # until the process ends
        return await super().load()


class ReadsFirst(LocalMessageBus):
    """A bus whose proof is in the body."""

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        body = await request.read(verified=False)
        return await LocalMessageBus._accept_push(self, replace(request, source=body))


async def main() -> None:
    LocalMessageBus.lease_seconds = options.lease_seconds
    if options.read_first:
        local_bus.LocalMessageBus = ReadsFirst  # type: ignore[misc]
    endpoints = [
        ("POST", "/numbers", publish),
        ("PUT", "/files", put_file),
        ("GET", "/files", get_file),
        ("GET", "/slow", slow),
        ("GET", "/large", large),
        ("POST", "/count", count),
        ("GET", "/figures", figures),
    ]
    configuration = TotoMicroserviceConfiguration(
        service_name="numbers",
        custom_config=Metered,
        shutdown_grace=options.grace,
        api_configuration=APIConfiguration(api_endpoints=[APIEndpoint(*endpoint) for endpoint in endpoints]),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="numbers", secret="numbers_topic")],
            message_handlers=[
                MessageBusHandlerConfig(handler_class=NumberHandler),
                MessageBusHandlerConfig(handler_class=PoisonHandler),
            ],
            delivery=options.delivery,
            max_concurrency=options.max_concurrency,
            retry=RetryPolicy(max_attempts=options.max_attempts, min_backoff=0.01, max_backoff=0.05),
        ),
    )
    service = await TotoMicroservice.init(configuration)
    service.app.add_api_websocket_route("/echo", echo)
    await service.start(port=0, host="127.0.0.1")


if __name__ == "__main__":
    asyncio.run(main())
