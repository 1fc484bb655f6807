"""Messages on SNS, compared with bare boto3 doing the same; and what a slow SNS does to the endpoints of a service.

The server answers without doing anything. boto3 and totoms take turns in one process; each figure is the median. Run as
``python -m benchmarks.aws_messages``.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.aws_files import canned_aws
from benchmarks.canned_aws import SIGNING_KEY, TOPIC

ROUNDS = 7
MESSAGES = 1_500
PUBLISHERS = 64
FILLING = "x" * 900
SNS_SECONDS = 0.02
BUSY_CONNECTIONS = 64
PINGS = 2_000
PINGS_PER_SECOND = 400


async def rates() -> None:
    """Publish by turns and print messages a second: boto3's loop, one publisher of ours, many of ours."""
    import boto3

    from totoms import MessageBus, MessageDestination, TotoMessage
    from totoms.messages.message import TYPE_ATTRIBUTE, encode_message

    sns = boto3.client("sns")
    bus = MessageBus(topics={"bench": TOPIC})
    destination = MessageDestination(topic="bench")

    def message(number: int) -> TotoMessage:
        return TotoMessage(type="measured", id=str(number), data={"filling": FILLING})

    def bare(count: int) -> None:
        attributes = {TYPE_ATTRIBUTE: {"DataType": "String", "StringValue": "measured"}}
        for number in range(count):
            body = encode_message(message(number)).decode()
            sns.publish(TopicArn=TOPIC, Message=body, MessageAttributes=attributes)

    async def publishers(number: int, count: int) -> None:
        numbers = iter(range(count))

        async def publisher() -> None:
            for one in numbers:
                await bus.publish_message(destination, message(one))

        await asyncio.gather(*(publisher() for _ in range(number)))

    ways: dict[str, Callable[[int], Awaitable[None]]] = {
        "boto3": lambda count: asyncio.to_thread(bare, count),
        "one": lambda count: publishers(1, count),
        "many": lambda count: publishers(PUBLISHERS, count),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):
        for way, publish in ways.items():
            begun = time.perf_counter()
            await publish(MESSAGES)
            if turn:  # the first warms up
                found[way].append(MESSAGES / (time.perf_counter() - begun))
    await bus.close()
    print(json.dumps(found))


async def serve() -> None:
    """The service that is measured: one endpoint publishes, another does nothing."""
    from fastapi import Request

    from totoms import (
        APIConfiguration,
        APIEndpoint,
        ExecutionContext,
        MessageBusConfig,
        MessageBusTopicConfig,
        MessageDestination,
        TotoMessage,
        TotoMicroservice,
        TotoMicroserviceConfiguration,
        UserContext,
        toto_delegate,
    )

    @toto_delegate
    async def publish(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
        bus = exec_context.message_bus
        assert bus is not None
        message = TotoMessage(type="measured", data={"filling": FILLING})
        return {"id": await bus.publish_message(MessageDestination(topic="bench"), message)}

    @toto_delegate
    async def ping(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
        return {"status": "ok"}

    configuration = TotoMicroserviceConfiguration(
        service_name="measured",
        api_configuration=APIConfiguration(
            api_endpoints=[APIEndpoint("POST", "/publish", publish), APIEndpoint("GET", "/ping", ping)]
        ),
        message_bus_configuration=MessageBusConfig(topics=[MessageBusTopicConfig("bench", "bench-topic")]),
    )
    await (await TotoMicroservice.init(configuration)).start(port=0)


@contextmanager
def service(variables: dict[str, str]) -> Iterator[int]:
    """Run the service and give its port."""
    command = [sys.executable, "-m", "benchmarks.aws_messages", "serve"]
    with subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "Listening on http://" in line:
                    yield int(line.split("Listening on http://")[1].split(":")[1].split('"')[0])
                    break
            else:
                raise SystemExit("the service did not start")
        finally:
            process.kill()


class Caller:
    """One connection to the service."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str) -> None:
        """Send a request and read its answer, which must be a good one."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._token}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head:
            raise SystemExit(head.decode())
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))


async def while_sns_is_slow(port: int) -> tuple[float, float, float]:
    """Ping while others publish; return the median and p99 of pings in ms, and how many were published a second."""
    from totoms.auth.tokens import make_token

    token = make_token(SIGNING_KEY, "bench@example.com", 3600)
    published, ending = 0, False

    async def busy() -> None:
        nonlocal published
        caller = Caller(port, token)
        while not ending:
            await caller.call("POST", "/publish")
            published += 1

    others = [asyncio.create_task(busy()) for _ in range(BUSY_CONNECTIONS)]
    pinging = Caller(port, token)
    await asyncio.sleep(1)  # until all of them publish
    published, taken, begun = 0, list[float](), time.perf_counter()
    for number in range(PINGS):
        due = begun + number / PINGS_PER_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent = time.perf_counter()
        await pinging.call("GET", "/ping")
        taken.append((time.perf_counter() - sent) * 1000)
    rate = published / (time.perf_counter() - begun)
    ending = True
    await asyncio.gather(*others)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98], rate


def measure() -> None:
    """Measure and print."""
    with canned_aws() as variables:
        command = [sys.executable, "-m", "benchmarks.aws_messages", "rates"]
        done = subprocess.run(
            command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    found: dict[str, Any] = json.loads(done.splitlines()[-1])
    for way, figures in found.items():
        print(f"publish, {way:<6} {statistics.median(figures):8.0f} messages/s")
    with canned_aws("--sns-delay", str(SNS_SECONDS)) as variables, service(variables) as port:
        median, worst, rate = asyncio.run(while_sns_is_slow(port))
    print(f"SNS takes {SNS_SECONDS * 1000:.0f} ms: {rate:.0f} published/s, pings {median:.2f} ms, p99 {worst:.2f} ms")
    many, one = (
        statistics.median(ours / theirs for ours, theirs in zip(found[way], found["boto3"], strict=True))
        for way in ("many", "one")
    )
    print(f"GOAL {many:.2f} >= 4 {PUBLISHERS} publishers on SNS, of a boto3 publish loop")
    print(f"GOAL {one:.2f} >= 1 one publisher on SNS, of a boto3 publish loop")
    print(f"GOAL {worst:.2f} <= 10 p99 of other endpoints while SNS takes {SNS_SECONDS * 1000:.0f} ms, ms")


if __name__ == "__main__":
    if sys.argv[1:] == ["rates"]:
        asyncio.run(rates())
    elif sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        measure()
