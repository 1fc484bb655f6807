"""The local bus, published and handled end to end, compared with bare SQLite and FastStream on NATS.

- *bare*: SQLite in WAL mode, ``synchronous=FULL``: publishers hand rows to one writer thread, which inserts what has
  gathered, deletes what it inserted before, commits, and wakes them. No broker at all: the price of durability.
- *totoms*: `publish_message` to a handler that says SUCCESS; *typed*: of a `TotoEvent`, *untyped*: the same as a dict.
- *FastStream on NATS JetStream*: file storage, pull consumer, explicit acks (needs nats-server and faststream).

Messages of 1 KiB; uvloop for all; the rounds interleaved, each figure the median. Run as ``python -m benchmarks.bus``.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from totoms import (
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    TotoEnvironment,
    TotoEvent,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)
from totoms.local.configuration import LocalConfiguration

ROUNDS = 5
PAYLOAD = "x" * 1000
PUBLISHERS = 64
MANY, FEW = 20_000, 2_000


class Posted(TotoEvent, type="posted"):
    slug: str
    title: str
    created: datetime
    words: int
    text: str


EVENT = Posted(slug="hello", title="Hello", created=datetime.now(UTC), words=200, text="x" * 900)
DATA = EVENT.model_dump(mode="json")


async def together(number: int, total: int, publish: Callable[[int], Awaitable[object]]) -> None:
    """Publish a total from several publishers, each of which waits for a result before its next message."""
    numbers = iter(range(total))

    async def publisher() -> None:
        for one in numbers:
            await publish(one)

    await asyncio.gather(*(publisher() for _ in range(number)))


class BareWriter:
    """Group commit with nothing around it."""

    def __init__(self, root: Path) -> None:
        self._connection = sqlite3.connect(root / "bare.sqlite3", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body BLOB)")
        self._rows: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    async def publish(self, body: bytes) -> None:
        future = self._loop.create_future()
        self._rows.put((body, future))
        await future

    def close(self) -> None:
        self._rows.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        first, before = 0, range(0)
        while (row := self._rows.get()) is not None:
            batch = [row]
            with contextlib.suppress(queue.Empty):
                while (more := self._rows.get_nowait()) is not None:
                    batch.append(more)
            rows = [(first + offset, body) for offset, (body, _) in enumerate(batch)]
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO messages VALUES (?, ?)", rows)
            self._connection.executemany("DELETE FROM messages WHERE id = ?", [(one,) for one in before])
            self._connection.execute("COMMIT")
            before = range(first, first + len(batch))
            first += len(batch)
            self._loop.call_soon_threadsafe(self._wake, [future for _, future in batch])

    @staticmethod
    def _wake(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)


async def bare(publishers: int, total: int) -> float:
    with tempfile.TemporaryDirectory() as root:
        writer = BareWriter(Path(root))
        body = PAYLOAD.encode()
        began = time.perf_counter()
        await together(publishers, total, lambda _: writer.publish(body))
        rate = total / (time.perf_counter() - began)
        writer.close()
        return rate


async def bare_commits(_publishers: int, total: int) -> float:
    def work(root: Path) -> float:
        connection = sqlite3.connect(root / "bare.sqlite3", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body BLOB)")
        began = time.perf_counter()
        for number in range(total):
            connection.execute("INSERT INTO messages VALUES (?, ?)", (number, PAYLOAD.encode()))
        rate = total / (time.perf_counter() - began)
        connection.close()
        return rate

    with tempfile.TemporaryDirectory() as root:
        return await asyncio.to_thread(work, Path(root))


class Counted:
    """How many were handled, and when all were."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.done = asyncio.Event()

    def one(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.done.set()


async def totoms(publishers: int, total: int, data: Any = PAYLOAD) -> float:
    counted = Counted(total)

    class Untyped(TotoMessageHandler):
        def get_handled_message_type(self) -> str:
            return "posted"

        async def process_message(self, message: TotoMessage) -> ProcessingResponse:
            counted.one()
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    class Typed(TotoMessageHandler[Posted]):
        async def process_message(self, message: TotoMessage[Posted]) -> ProcessingResponse:
            counted.one()
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    handler = Typed if isinstance(data, Posted) else Untyped

    with tempfile.TemporaryDirectory() as root:
        service = await TotoMicroservice.create(
            TotoMicroserviceConfiguration(
                service_name="bench",
                environment=TotoEnvironment("local", LocalConfiguration(root=Path(root))),
                message_bus_configuration=MessageBusConfig(
                    topics=[MessageBusTopicConfig(logical_name="posts", secret="posts_topic")],
                    message_handlers=[MessageBusHandlerConfig(handler_class=handler)],
                    max_concurrency=256,
                ),
            )
        )
        async with service.app.router.lifespan_context(service.app):
            bus, destination = service.message_bus, MessageDestination(topic="posts")
            assert bus is not None
            await bus.publish_message(destination, TotoMessage(type="warm-up"))
            began = time.perf_counter()
            await together(
                publishers,
                total,
                lambda _: bus.publish_message(destination, TotoMessage(type="posted", data=data)),
            )
            await counted.done.wait()
            return total / (time.perf_counter() - began)


def nats_program() -> str | None:
    """Return the path of nats-server, which may be missing from a developer's PATH."""
    return shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def nats_server() -> Iterator[str]:
    """Run nats-server with JetStream on a free port."""
    program = nats_program()
    assert program is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as store:
        server = subprocess.Popen(
            [program, "-js", "-sd", store, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                    break
                time.sleep(0.02)
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


async def faststream(publishers: int, total: int) -> float:
    from faststream import AckPolicy, FastStream
    from faststream.nats import JStream, NatsBroker, PullSub

    with nats_server() as url:
        counted = Counted(total)
        broker = NatsBroker(url, logger=None)

        @broker.subscriber(
            "posts", stream=JStream("posts"), pull_sub=PullSub(batch_size=64), ack_policy=AckPolicy.ACK, durable="bench"
        )
        async def handle(message: str) -> None:
            counted.one()

        application = FastStream(broker, logger=None)
        await application.start()
        began = time.perf_counter()
        await together(publishers, total, lambda _: broker.publish(PAYLOAD, "posts", stream="posts"))
        await counted.done.wait()
        rate = total / (time.perf_counter() - began)
        await application.stop()
        return rate


def main() -> None:
    """Measure, and print figures and goals."""
    cases: list[tuple[str, Callable[[int, int], Awaitable[float]], int, int]] = [
        ("bare, 64 publishers", bare, PUBLISHERS, MANY),
        ("totoms, 64 publishers", totoms, PUBLISHERS, MANY),
        ("bare commits, one after another", bare_commits, 1, FEW),
        ("totoms, one publisher", totoms, 1, FEW),
        ("totoms, 64 publishers, untyped", partial(totoms, data=DATA), PUBLISHERS, MANY),
        ("totoms, 64 publishers, typed", partial(totoms, data=EVENT), PUBLISHERS, MANY),
    ]
    try:
        import faststream.nats  # noqa: F401 - is it there?

        if nats_program() is None:
            raise ImportError("nats-server")
        cases.append(("FastStream on NATS JetStream, 64 publishers", faststream_case, PUBLISHERS, MANY))
    except ImportError as error:
        print(
            f"NOT MEASURED: FastStream on JetStream ({error}): pip install 'faststream[nats]', apt install nats-server"
        )
    rates: dict[str, list[float]] = {name: [] for name, *_ in cases}
    for _ in range(ROUNDS):
        for name, case, publishers, total in cases:
            rates[name].append(uvloop.run(case(publishers, total)))
    median = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in median.items():
        print(f"{name:<48} {rate:>9,.0f} messages/s   ({min(rates[name]):,.0f} to {max(rates[name]):,.0f})")
    ours = median["totoms, 64 publishers"]
    print(f"GOAL {ours / median['bare, 64 publishers']:.2f} >= 0.4 local bus, 64 publishers, of bare group commit")
    alone = median["totoms, one publisher"] / median["bare commits, one after another"]
    print(f"GOAL {alone:.2f} >= 0.7 local bus, one publisher, of bare commits")
    typed = median["totoms, 64 publishers, typed"] / median["totoms, 64 publishers, untyped"]
    print(f"GOAL {typed:.2f} >= 0.9 local bus, 64 publishers, typed messages, of untyped ones")
    if "FastStream on NATS JetStream, 64 publishers" in median:
        ratio = ours / median["FastStream on NATS JetStream, 64 publishers"]
        print(f"GOAL {ratio:.2f} >= 4 local bus, 64 publishers, of FastStream on NATS JetStream")


faststream_case = faststream

if __name__ == "__main__":
    main()
