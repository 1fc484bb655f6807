"""What telemetry adds to a request and to a message, with and without the SDK of OpenTelemetry.

``python -m benchmarks.telemetry`` runs the app of a service without sockets and a message bus without a broker: in one
process without a provider, in another with the SDK and a batch exporter that drops what it gets. It prints microseconds
of processor time, the least of many rounds, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

KEY = "a signing key for benchmarks only, long enough"


def set_provider() -> None:
    """Set the SDK's providers, with exporters that drop everything."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Dropping(SpanExporter):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))


async def least(act: Callable[[], Awaitable[Any]], rounds: int, calls: int = 200) -> float:
    """Return the microseconds of processor time of one call, in the best round."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(calls):
            await act()
        best = min(best, (time.process_time() - begun) / calls)
        await asyncio.sleep(0)
    return best * 1e6


async def measure(rounds: int) -> dict[str, float]:
    """Return the microseconds of a request, of a message that is published, and of one that is handled."""
    import jwt
    from benchmarks.http_services import _totoms

    from totoms import MessageDestination, ProcessingResponse, ProcessingStatus, TotoMessage, TotoMicroservice
    from totoms.environment import TotoEnvironment
    from totoms.logging.logger import TotoLogger
    from totoms.messages.bus import MessageBus
    from totoms.messages.handler import TotoMessageHandler
    from totoms.messages.message import encode_message
    from totoms.messages.receiver import Received
    from totoms.messages.router import MessageRouter
    from totoms.messages.subscription import RetryPolicy, Subscription

    class Bus(MessageBus):
        async def _publish(self, batch: Sequence[Any]) -> Sequence[None]:
            return [None] * len(batch)

    class Handler(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "made"

        async def process_message(self, message: TotoMessage) -> ProcessingResponse:
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    service = await TotoMicroservice.create(_totoms())
    claims = {"user": "u@example.com", "authProvider": "toto", "exp": int(time.time()) + 3600}
    token = jwt.encode(claims, KEY, algorithm="HS256")
    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {token}".encode())]

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise SystemExit(f"status {message['status']}")

    async def request() -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 5),
            "scheme": "http",
            "root_path": "",
            "method": "GET",
            "path": "/bench/item",
            "raw_path": b"/bench/item",
            "query_string": b"",
            "headers": headers,
            "state": {},
        }
        await service.app(scope, receive, send)

    bus = Bus(TotoEnvironment("local"), {"topic": "t"})
    destination, message = MessageDestination(topic="topic"), TotoMessage(type="made", cid="c", data={"a": 1})
    logger = TotoLogger.get_instance("bench")
    router = MessageRouter(
        [Handler(service.config, bus, service.environment)],
        retry=RetryPolicy(),
        timeout=60,
        logger=logger,
        system="local",
    )
    received = Received(encode_message(message), "m", 1, Subscription("s", "t", "topic"), {})
    return {
        "request": await least(request, rounds),
        "publish": await least(lambda: bus.publish_message(destination, message), rounds),
        "handle": await least(lambda: router.handle(received), rounds),
    }


def main() -> None:
    """Measure each in turn, and print the table and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", choices=["off", "sdk"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.child == "sdk":
            set_provider()
        print(json.dumps(asyncio.run(measure(options.rounds))), file=sys.stderr)
        return
    found: dict[str, dict[str, float]] = {"off": {}, "sdk": {}}
    with tempfile.TemporaryDirectory() as root:
        variables = {**os.environ, "JWT_SIGNING_KEY": KEY, "TOTOMS_LOCAL_ROOT": root, "HYPERSCALER": "local"}
        for _ in range(options.turns):
            for name, best in found.items():
                command = [sys.executable, "-m", "benchmarks.telemetry", "--child", name]
                command += ["--rounds", str(options.rounds)]
                done = subprocess.run(
                    command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
                )
                for what, spent in json.loads(done.stderr.strip().splitlines()[-1]).items():
                    best[what] = min(spent, best.get(what, spent))
    print(f"{'':12}{'no provider':>14}{'SDK, batches':>14}{'ratio':>8}")
    for what, off in found["off"].items():
        print(f"{what:12}{off:11.1f} µs{found['sdk'][what]:11.1f} µs{found['sdk'][what] / off:8.2f}")
    for what, off in found["off"].items():
        print(f"GOAL {found['sdk'][what] / off:.2f} <= 1.15 {what} with the SDK and a batch exporter, of one without")


if __name__ == "__main__":
    main()
