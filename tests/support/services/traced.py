"""A service on a real socket: a request publishes an order, and the handler writes a file. For the tests of telemetry.

``python traced.py [MODE]`` sends itself one request, waits for the file, stops, and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
from fastapi import Request

from totoms import (
    APIConfiguration,
    APIEndpoint,
    CloudStorage,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    TotoControllerConfig,
    TotoEvent,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
    toto_handler,
)

mode = sys.argv[1] if len(sys.argv) > 1 else ""
handled = asyncio.Event()
CID = "order-1"


class OrderPlaced(TotoEvent, type="orderPlaced"):
    """An order."""

    number: int


@toto_delegate
async def place(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    """Publish an order."""
    await exec_context.message_bus.publish_message(MessageDestination(topic="orders"), OrderPlaced(number=1))
    return {}


@toto_handler
async def keep(message: TotoMessage[OrderPlaced], exec_context: ExecutionContext[TotoControllerConfig]) -> None:
    """Write a file."""
    await CloudStorage("orders").upload_bytes_async(b"an order", "1.txt")
    handled.set()


configuration = TotoMicroserviceConfiguration(
    service_name="traced",
    base_path="/traced",
    version="1.2.3",
    api_configuration=APIConfiguration(
        api_endpoints=[APIEndpoint(method="POST", path="/orders", delegate=place, public=True)]
    ),
    message_bus_configuration=MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="orders", secret="orders")],
        message_handlers=[MessageBusHandlerConfig(handler=keep)],
    ),
)


def record_calls(called: set[str]) -> None:
    """Record the functions of OpenTelemetry and of this project's spans and metrics that are called.

    FastAPI asks for the providers now and then, to see whether one was set.
    """
    telemetry = str(Path("totoms", "telemetry", "telemetry.py")), str(Path("totoms", "telemetry", "metrics.py"))

    def trace(frame: Any, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        name = frame.f_code.co_name
        asked = name.startswith("get_") and name.endswith("_provider")
        if event == "call" and not asked and ("/opentelemetry/" in file or file.endswith(telemetry)):
            called.add(f"{file}:{name}")

    sys.setprofile(trace)


def own_provider() -> Any:
    """Set a tracer provider, as a service may do."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


async def main() -> None:
    """Run."""
    from totoms.telemetry import state

    exporter = own_provider() if mode == "own" else None
    if mode == "without_sdk":
        sys.modules["opentelemetry.sdk"] = None  # type: ignore[assignment]
    service = await TotoMicroservice.init(configuration)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    serving = asyncio.create_task(service.start(port))
    while service._serving is None or not service._serving.listening:
        await asyncio.sleep(0.01)
    called: set[str] = set()
    active = state.active is not None
    async with httpx.AsyncClient() as client:
        if mode == "profile":
            record_calls(called)
        answer = await client.post(f"http://127.0.0.1:{port}/traced/orders", headers={"x-correlation-id": CID})
        await asyncio.wait_for(handled.wait(), 60)
        sys.setprofile(None)
        scraped = ""
        if mode == "scrape":
            scraped = (await client.get(f"http://127.0.0.1:{os.environ['OTEL_EXPORTER_PROMETHEUS_PORT']}/metrics")).text
    await service.stop()
    await serving
    own = [span.name for span in exporter.get_finished_spans()] if exporter else []
    seen = {
        "active": active,
        "status": answer.status_code,
        "cid": CID,
        "called": sorted(called),
        "own": own,
        "scraped": scraped,
    }
    print(json.dumps(seen))


asyncio.run(main())
