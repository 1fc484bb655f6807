"""Messages on Pub/Sub, compared with the bare client with the same batches.

- *published*: lots of 1,000 by `publish_messages`, and one by one by 64 publishers that each wait for theirs; the bare
  client has the same settings for its batches, and is given the same messages to write.
- *pulled*: a backlog handled by a service, 256 at a time; the bare client pulls 256, parses each and acknowledges them,
  in turn.

Google's emulator serves both, where it and Java are installed; else the stand-in of the tests does, which is slower
than either, and hides what differs. Messages of 1 KB; the rounds interleaved, each figure the median. Run as
``python -m benchmarks.gcp_messages``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from benchmarks.bus import together

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "demo"))

from on_gcp import PROJECT, pubsub, stand_in
from servers import server

from totoms import (
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    TotoEnvironment,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)
from totoms.messages.message import CONTENT_TYPE, CONTENT_TYPE_ATTRIBUTE, ID_ATTRIBUTE, TYPE_ATTRIBUTE, encode_message

ROUNDS = 11
TOTAL, LOT, PUBLISHERS, AT_ONCE = 10_000, 1_000, 64, 256
PAYLOAD = "x" * 1000
GOAL_RATIO = 0.95


def topic(name: str) -> str:
    """Make a topic and return its path."""
    path = f"projects/{PROJECT}/topics/{name}"
    _topics().create_topic(name=path)
    return path


def _topics() -> Any:
    from totoms_gcp.messages.clients import make_topic_client

    return make_topic_client()


def _publisher() -> Any:
    from totoms_gcp.messages.clients import make_publisher

    return make_publisher()  # the bare client, with the settings that totoms gives it


def _bus(name: str) -> Any:
    from totoms_gcp.messages.bus import PubSubMessageBus

    return PubSubMessageBus(TotoEnvironment("gcp"), {"posts": name})


def _wire() -> tuple[bytes, dict[str, str]]:
    """A message as totoms writes it, written by hand."""
    message = TotoMessage(type="posted", data=PAYLOAD)
    attributes = {TYPE_ATTRIBUTE: message.type, ID_ATTRIBUTE: message.id, CONTENT_TYPE_ATTRIBUTE: CONTENT_TYPE}
    return encode_message(message), attributes


async def bare_lots(path: str) -> float:
    client = _publisher()
    client.publish(path, b"warm-up").result()

    def work() -> None:
        for _ in range(TOTAL // LOT):
            lot = [_wire() for _ in range(LOT)]
            for future in [client.publish(path, body, **attributes) for body, attributes in lot]:
                future.result()

    return await timed(asyncio.to_thread(work), lambda: asyncio.to_thread(_stop, client))


async def totoms_lots(path: str) -> float:
    bus, destination = _bus(path), MessageDestination(topic="posts")
    await bus.publish_message(destination, TotoMessage(type="warm-up"))

    async def work() -> None:
        for _ in range(TOTAL // LOT):
            await bus.publish_messages(destination, [TotoMessage(type="posted", data=PAYLOAD) for _ in range(LOT)])

    return await timed(work(), bus.close)


async def bare_one_by_one(path: str) -> float:
    client = _publisher()
    client.publish(path, b"warm-up").result()

    def publish() -> Awaitable[object]:
        body, attributes = _wire()
        return asyncio.wrap_future(client.publish(path, body, **attributes))

    work = together(PUBLISHERS, TOTAL, lambda _: publish())
    return await timed(work, lambda: asyncio.to_thread(_stop, client))


async def totoms_one_by_one(path: str) -> float:
    bus, destination = _bus(path), MessageDestination(topic="posts")
    await bus.publish_message(destination, TotoMessage(type="warm-up"))
    work = together(
        PUBLISHERS, TOTAL, lambda _: bus.publish_message(destination, TotoMessage(type="posted", data=PAYLOAD))
    )
    return await timed(work, bus.close)


async def bare_pull(path: str) -> float:
    from totoms_gcp.messages.clients import make_subscriber

    client, subscription = make_subscriber(), f"{path.replace('/topics/', '/subscriptions/')}-bare"
    client.create_subscription(name=subscription, topic=path, ack_deadline_seconds=60)
    await fill(path)

    def work() -> None:
        left = TOTAL
        while left > 0:
            found = client.pull(subscription=subscription, max_messages=AT_ONCE).received_messages
            for one in found:
                if json.loads(one.message.data)["type"] != "posted":
                    raise SystemExit("another message came")
            if found:
                client.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in found])
            left -= len(found)

    async def close() -> None:
        client.delete_subscription(subscription=subscription)
        client.transport.close()

    return await timed(asyncio.to_thread(work), close)


async def totoms_pull(path: str) -> float:
    left, done, name = TOTAL, asyncio.Event(), path.rpartition("/")[2]

    class Handler(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "posted"

        async def process_message(self, message: TotoMessage) -> ProcessingResponse:
            nonlocal left
            left -= 1
            if left <= 0:
                done.set()
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    async def start() -> Any:
        configuration = TotoMicroserviceConfiguration(
            service_name=name,
            message_bus_configuration=MessageBusConfig(
                topics=[MessageBusTopicConfig(logical_name="posts", secret=name)],
                message_handlers=[MessageBusHandlerConfig(handler_class=Handler)],
                max_concurrency=AT_ONCE,
                delivery="pull",
            ),
        )
        service = await TotoMicroservice.create(configuration)
        running = service.app.router.lifespan_context(service.app)
        await running.__aenter__()
        return running

    running = await start()  # which makes the subscription
    await running.__aexit__(None, None, None)
    await fill(path)
    running = await start()
    # With the draining, in which the last acknowledgements are made.
    return await timed(done.wait(), lambda: running.__aexit__(None, None, None), with_close=True)


async def fill(path: str) -> None:
    """Publish a backlog, of messages as totoms writes them."""
    bus = _bus(path)
    for _ in range(TOTAL // LOT):
        await bus.publish_messages(
            MessageDestination(topic="posts"), [TotoMessage(type="posted", data=PAYLOAD) for _ in range(LOT)]
        )
    await bus.close()


async def timed(work: Awaitable[object], close: Callable[[], Awaitable[object]], with_close: bool = False) -> float:
    """Return how many messages a second `work` has done."""
    began = time.perf_counter()
    await work
    finished = time.perf_counter()
    await close()
    return TOTAL / ((time.perf_counter() if with_close else finished) - began)


def _stop(client: Any) -> None:
    client.stop()
    client.transport.close()


CASES: dict[str, tuple[Callable[[str], Awaitable[float]], Callable[[str], Awaitable[float]]]] = {
    "published in lots": (bare_lots, totoms_lots),
    "published one by one": (bare_one_by_one, totoms_one_by_one),
    "pulled and handled": (bare_pull, totoms_pull),
}


def measure() -> None:
    """Measure, and print figures and goals."""
    logging.disable(logging.INFO)
    command = pubsub()
    what = "Google's emulator" if "java" in command[0] else "the stand-in of the tests"
    print(f"Pub/Sub is {what}.")
    with server(command) as broker, server(stand_in("gcp.secret_manager")) as secrets:
        os.environ |= {
            "HYPERSCALER": "gcp",
            "GCP_PID": PROJECT,
            "PUBSUB_EMULATOR_HOST": broker,
            "SECRET_MANAGER_EMULATOR_HOST": secrets,
        }
        ratios = {name: _compare(name) for name in CASES}
    for name, ratio in ratios.items():
        print(f"GOAL {ratio:.2f} >= {GOAL_RATIO} messages {name}, of the bare client of Pub/Sub on {what}")


def _compare(name: str) -> float:
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS):
        for side in (0, 1) if turn % 2 else (1, 0):
            unique = f"bench-{name.replace(' ', '-')}-{turn}-{side}"
            path = topic(unique)
            _make_secret(unique)
            rates[side].append(uvloop.run(CASES[name][side](path)))
    bare, totoms = (statistics.median(found) for found in rates)
    print(f"{name:<22} bare {bare:>8,.0f} messages/s, totoms {totoms:>8,.0f} messages/s")
    return statistics.median(ours / theirs for theirs, ours in zip(*rates, strict=True))


def _make_secret(name: str) -> None:
    from totoms_gcp import clients

    store: Any = clients.secrets()
    store.create_secret(parent=f"projects/{PROJECT}", secret_id=name, secret={"replication": {"automatic": {}}})
    store.add_secret_version(parent=f"projects/{PROJECT}/secrets/{name}", payload={"data": name.encode()})


if __name__ == "__main__":
    measure()
