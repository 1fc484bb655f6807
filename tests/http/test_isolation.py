"""One caller or request does not affect the next."""

from __future__ import annotations

import asyncio
import select
import socket
from contextvars import ContextVar
from typing import Any

import pytest

from support.clocks import Line, settle
from support.http.sockets import Running, read_answer, status
from totoms import ServerConfiguration
from totoms.http.server.states import State

GET = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def drain(caller: socket.socket) -> None:
    while caller.recv(65536):
        pass


async def remembering(scope: Any, receive: Any, send: Any) -> None:
    seen = tenant.get()
    tenant.set("me")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": seen})
        await send({"type": "websocket.close"})
    else:
        await answer(send, seen.encode())


def test_context_of_a_request_does_not_reach_the_next_of_its_pipeline() -> None:
    with Running(remembering).serving() as running, running.connect() as caller:
        caller.sendall(GET * 3)
        assert [read_answer(caller)[2] for _ in range(3)] == [b"nobody"] * 3


def test_context_of_a_request_does_not_reach_a_websocket_behind_it() -> None:
    pytest.importorskip("wsproto")
    with Running(remembering).serving() as running, running.connect() as caller:
        caller.sendall(GET + HANDSHAKE)
        assert read_answer(caller)[2] == b"nobody"
        received = b""
        while b"nobody" not in received and b"me" not in received.partition(b"\r\n\r\n")[2]:
            received += caller.recv(65536)
        assert b"nobody" in received


async def test_websocket_is_read_on_when_it_is_accepted() -> None:
    """Whoever is not known yet must not fill the memory while it is found out who that is."""
    pytest.importorskip("wsproto")
    known = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await known.wait()
        await send({"type": "websocket.accept"})
        await receive()

    caller = Line(app).connect()
    await caller.send(HANDSHAKE)
    assert caller.state is State.UPGRADED
    assert not caller.transport.reading
    known.set()
    await settle()
    assert caller.transport.reading
    assert b" 101 " in caller.transport.written


async def test_endless_stream_of_a_disconnected_caller_is_cancelled() -> None:
    """Starlette ends it by cancelling its task, which needs a turn of the event loop."""
    pieces = 0

    async def endless(_scope: Any, receive: Any, send: Any) -> None:
        async def stream() -> None:
            nonlocal pieces
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while pieces < 10_000:
                pieces += 1
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        streaming = asyncio.create_task(stream())
        while (await receive())["type"] != "http.disconnect":
            pass
        streaming.cancel()
        await asyncio.wait([streaming])

    caller = Line(endless).connect()
    await caller.send(GET)
    caller.transport.lose()
    for _ in range(100):
        await asyncio.sleep(0)
    assert pieces < 10_000


async def test_idle_connection_does_not_keep_the_body_it_received() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, b"ok")

    caller = Line(app, max_body_bytes=1_000_000).connect()
    body = b"x" * 500_000
    await caller.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 500000\r\n\r\n" + body)
    assert caller.state is State.IDLE
    assert caller.protocol._data == b""
    await caller.send(GET)
    assert caller.state is State.IDLE
    assert caller.transport.written.count(b"200 OK") == 2


def test_truncated_answer_that_ends_with_the_connection_is_reset() -> None:
    """HTTP/1.0 has no other sign that something is missing: nginx speaks it to what is behind it."""

    async def broken(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("the other half")

    with Running(broken).serving() as running, running.connect() as caller:
        caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            drain(caller)
        assert status(running.send(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")) == 200


async def test_connection_that_is_being_closed_counts_until_its_caller_took_the_answer() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, b"ok")

    line = Line(app, max_connections=4)
    slow = [line.connect() for _ in range(4)]
    for caller in slow:
        caller.transport.untaken = 50_000
        await caller.send(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        assert caller.state is State.CLOSING
    await line.clock.pass_(1)
    for _ in range(20):
        caller = line.connect()
        await caller.send(GET)
        assert caller.state is State.IDLE
        assert len(line.state.connections) <= 4
        await line.clock.pass_(1)
    assert all(caller.transport.aborted for caller in slow)


def test_reset_reaches_a_caller_that_does_not_read() -> None:
    """So the system does not go on to hold what was written, for minutes and megabytes."""

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, b"x" * 8_000_000)

    with Running(large, ServerConfiguration(answer_timeout=0.2)).serving() as running, socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", running.port))
        caller.sendall(GET)
        caller.settimeout(120)
        poll = select.poll()
        poll.register(caller, select.POLLHUP)
        assert poll.poll(120_000)
        with pytest.raises(ConnectionResetError):
            drain(caller)
