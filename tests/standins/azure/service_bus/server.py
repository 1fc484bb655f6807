"""A stand-in for Service Bus: AMQP 1.0, and over HTTPS the interface that administers, on one port.

The SDK takes both addresses from one connection string, so the first byte of a connection tells which it is.

    with ServiceBusStandIn() as server:
        server.make_topic("posts"); server.connection_string; server.ca_file

As a program it writes the authority's certificate and runs until it is killed:

    python tests/standins azure.service_bus.server --port=N --ca-file=PATH
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import trustme

from standins.azure.service_bus import amqp, amqp_websocket
from standins.azure.service_bus.admin import administer
from standins.azure.service_bus.amqp import Described, described
from standins.azure.service_bus.links import Connection
from standins.azure.service_bus.store import Queue, Store, Stored, Topic
from standins.pipes import pipe
from standins.ports import reserve

NAMESPACE = "shop-namespace.servicebus.windows.net"
"""Its name for who comes through a proxy that knows where it is."""
_TLS = 0x16
_Result = TypeVar("_Result")


class ServiceBusStandIn:
    """Runs in a thread of its own while the block does.

    Attributes:
        denied: Entities, in lower case, that the client's token is not good for.
        admin_denied: Whether the client may not administer.
        admin_requests: Method and path of each request to administer.
        websockets: How many connections came over WebSockets.
        tokens: What clients have shown.
        sends: How many transfers were sent here: a batch is one.
        delay: Seconds before a send is answered.
        busy: Whether sends are answered with "server busy".
        refused: What no message may contain: a transfer with such a message, also a batch, is rejected.
        rejects_mixed_sessions: Whether a batch of several sessions is refused, as by a partitioned entity.
    """

    def __init__(self, port: int = 0, ca_file: str = "") -> None:
        self.port = port
        self.store = Store()
        self.denied: set[str] = set()
        self.admin_denied = False
        self.admin_requests: list[tuple[str, str]] = []
        self.websockets = 0
        self.tokens: list[str] = []
        self.sends = 0
        self.delay = 0.0
        self.busy = False
        self.rejects_mixed_sessions = False
        self.refused: set[bytes] = set()
        self.max_message_size = 262_144
        self.connections: set[Connection] = set()
        self._folder = tempfile.TemporaryDirectory()
        self.ca_file = ca_file or str(Path(self._folder.name) / "ca.pem")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._secure: asyncio.Server | None = None

    @property
    def connection_string(self) -> str:
        return (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName=key;SharedAccessKey=c2VjcmV0;"
            "UseDevelopmentEmulator=true"
        )

    @property
    def named_connection_string(self) -> str:
        """By the name, with TLS, as real namespaces have it."""
        return f"Endpoint=sb://{NAMESPACE}/;SharedAccessKeyName=key;SharedAccessKey=c2VjcmV0"

    def __enter__(self) -> ServiceBusStandIn:
        self._thread.start()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", NAMESPACE).configure_cert(context)
        self._context = context
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Do something on the server's loop, where all its state lives."""

        async def run() -> _Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def start(self) -> None:
        """Listen, on the port it had."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    def stop(self) -> None:
        """Stop listening and end connections; what there is, is kept."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)

    async def _start(self) -> None:
        self._secure = await asyncio.start_server(self._serve_admin, "127.0.0.1", 0, ssl=self._context)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        servers = [server for server in (self._server, self._secure) if server is not None]
        # First accept no more: asyncio leaves a connection open that is accepted while its server closes (gh-109564).
        for listening in (one for server in servers for one in server.sockets):
            self._loop.remove_reader(listening.fileno())
        for _ in range(10):  # until a connection that was just accepted has begun
            await asyncio.sleep(0)
        for server in servers:
            server.close()
        reserve(self.port)  # or another process may get it before this starts again
        for connection in list(self.connections):
            connection.close(abruptly=True)
        serving = [task for task in self._serving if task is not asyncio.current_task()]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    # --- what an operator does ---

    def make_topic(self, name: str) -> None:
        self.run(lambda: self.store.topics.setdefault(name.lower(), Topic(name)))

    def make_queue(self, name: str, **settings: Any) -> None:
        self.run(lambda: self.store.queues.setdefault(name.lower(), Queue(name, **settings)))

    def make_subscription(self, topic: str, name: str, **settings: Any) -> None:
        path = f"{topic}/Subscriptions/{name}"
        self.run(
            lambda: self.store.topics[topic.lower()].subscriptions.setdefault(name.lower(), Queue(path, **settings))
        )

    def delete_subscription(self, topic: str, name: str) -> None:
        """Delete a subscription, and detach the links by which it is received from."""

        def delete() -> None:
            queue = self.store.topics[topic.lower()].subscriptions.pop(name.lower())
            for connection in list(self.connections):
                for link in [one for one in connection.outgoing.values() if one.queue is queue]:
                    connection.detach(link, amqp.error("amqp:not-found", "The messaging entity was deleted."))

        self.run(delete)

    def entity(self, path: str) -> Queue:
        """Return a queue, ``topic/subscriptions/name``, or either's ``/$deadletterqueue``."""
        return self.run(lambda: self.store.source(path))

    def messages(self, path: str) -> list[Stored]:
        """Return the messages of an entity, locked ones as well."""
        return self.run(lambda: list(self.store.source(path).each()))

    def kill_connections(self) -> None:
        """Reset all connections."""
        self.run(lambda: [connection.close(abruptly=True) for connection in list(self.connections)])

    def drop_links(self) -> None:
        """Detach all links by which messages are received."""

        def drop() -> None:
            for connection in list(self.connections):
                for link in [one for one in connection.outgoing.values() if one.queue is not None]:
                    connection.detach(link, amqp.error("amqp:link:detach-forced", "As the test says."))

        self.run(drop)

    # --- what the connections ask ---

    def refusal(self, node: str) -> Described | None:
        """Return why an entity may not be used, or None."""
        if node.removesuffix("/$management") in self.denied:
            return amqp.error("amqp:unauthorized-access", "Unauthorized access.")
        return None

    def take(self, node: str, data: bytes, message_format: int) -> Described:
        """Take in what was sent to an entity; return the outcome."""
        self.sends += 1
        if self.busy:
            return described(amqp.REJECTED, amqp.error("com.microsoft:server-busy", "Try again later."))
        if len(data) > self.max_message_size:
            return described(amqp.REJECTED, amqp.error("amqp:link:message-size-exceeded", "It is too large."))
        if any(marker in data for marker in self.refused):
            return described(amqp.REJECTED, amqp.error("amqp:invalid-field", "Refused by the test."))
        messages = [stored(one) for one in _each(data, message_format)]
        if self.rejects_mixed_sessions and len({message.session_id for message in messages}) > 1:
            return described(amqp.REJECTED, amqp.error("amqp:not-allowed", "They belong into several partitions."))
        destination = self.store.destination(node)
        for message in messages:
            destination.put(message)
        return described(amqp.ACCEPTED)

    def settle(self, queue: Queue, token: bytes, state: Described) -> None:
        """Do what a disposition says."""
        match int(state.code):
            case amqp.ACCEPTED:
                queue.complete(token)
            case amqp.RELEASED:
                queue.release(token)
            case amqp.MODIFIED:
                queue.abandon(token)
            case amqp.REJECTED:
                error = state.field(0)
                info = {str(name): value for name, value in ((error.field(2) if error else None) or {}).items()}
                queue.bury(
                    token,
                    _text(info.get("DeadLetterReason") or ""),
                    _text(info.get("DeadLetterErrorDescription") or ""),
                )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._note()
        connection = Connection(self, writer)
        try:
            first = await reader.readexactly(1)
            if first[0] == _TLS:
                await self._pass_on(first, reader, writer)
            else:
                self.connections.add(connection)
                await connection.serve(reader, first)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(connection)
            connection.close()

    def _note(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _pass_on(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._secure is not None
        port = self._secure.sockets[0].getsockname()[1]
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        to_writer.write(first)
        try:
            await asyncio.gather(pipe(reader, to_writer), pipe(to_reader, writer))
        finally:
            to_writer.close()

    async def _serve_admin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._note()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, target, _ = head.split(" ", 2)
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                headers = {name.lower(): value for name, value in headers.items()}
                if target.lower() == amqp_websocket.PATH:
                    self.websockets += 1
                    await amqp_websocket.serve(reader, writer, headers, self.port)
                    return
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, content = administer(self, method, target, body, updates="if-match" in headers)
                about = f"Content-Type: application/atom+xml\r\nContent-Length: {len(content)}"
                writer.write(f"HTTP/1.1 {status} -\r\n{about}\r\n\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def _each(data: bytes, message_format: int) -> list[bytes]:
    if message_format != amqp.BATCH_FORMAT:
        return [data]
    return [bytes(amqp.section_value(raw)) for code, raw in amqp.sections(data) if code == amqp.DATA]


def stored(data: bytes) -> Stored:
    """Return what is kept of a message's bytes."""
    found = amqp.sections(data)
    message = Stored([one for one in found if one[0] == amqp.PROPERTIES or one[0] >= amqp.DATA], {})
    for code, raw in found:
        if code == amqp.APPLICATION_PROPERTIES:
            message.properties = {_text(name): value for name, value in amqp.section_value(raw).items()}
        elif code == amqp.PROPERTIES:
            fields = amqp.section_value(raw)
            message.message_id = fields[0] if fields else None
            message.session_id = _text(fields[10]) if len(fields) > 10 and fields[10] is not None else None
        elif code == amqp.ANNOTATIONS:
            due = next(
                (v for n, v in amqp.section_value(raw).items() if str(n) == "x-opt-scheduled-enqueue-time"), None
            )
            message.due = due / 1000 if due else 0.0
    return message


def _text(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ca-file", default="")
    parsed = parser.parse_args()
    with ServiceBusStandIn(parsed.port, parsed.ca_file) as running:
        print(running.port, flush=True)
        threading.Event().wait()
