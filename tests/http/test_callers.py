"""What callers see: clients of the standard library, WebSockets, both families of addresses."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, WebSocket

from support.http.app import make_service, token
from support.http.sockets import AUTHORIZED, DEADLINE, Running, read_answer, status
from totoms import APIEndpoint, ExecutionContext, ServerConfiguration, UserContext, toto_delegate
from totoms.http.server.server import bind, url_of, uvicorn_config

LIMIT = 100_000


@toto_delegate
async def echo(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return {"size": len(await request.body())}


@toto_delegate
async def ignore(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return {"read": 0}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    service = make_service(
        APIEndpoint("POST", "/x", echo), APIEndpoint("POST", "/ignore", ignore), max_body_bytes=LIMIT
    )
    with Running(service, max_body_bytes=LIMIT).serving() as running:
        yield running


def post(running: Running, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE)
    with contextlib.closing(client):
        client.request("POST", path, body, headers, encode_chunked=not isinstance(body, bytes))
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())


@toto_delegate
async def who(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    assert request.client is not None
    return {"client": request.client.host, "scheme": request.url.scheme}


def test_headers_of_a_proxy_on_this_machine_count_and_only_where_they_are_sent() -> None:
    service = make_service(APIEndpoint("POST", "/who", who))
    with Running(service).serving() as running:
        proxied = {**BEARER, "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
        for _ in range(2):
            assert post(running, "/who", b"", **BEARER) == (200, {"client": "127.0.0.1", "scheme": "http"})
            assert post(running, "/who", b"", **proxied) == (200, {"client": "203.0.113.7", "scheme": "https"})


BEARER = {"Authorization": f"Bearer {token()}"}
CHUNKED = {**BEARER, "Transfer-Encoding": "chunked"}


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 1_000_000])
def test_standard_client_sees_the_413(size: int, running: Running) -> None:
    assert post(running, "/x", b"x" * size, **BEARER)[0] == 413


def test_standard_client_sees_the_413_of_a_chunked_body(running: Running) -> None:
    pieces = (b"x" * 10_000 for _ in range(50))
    assert post(running, "/x", pieces, **CHUNKED)[0] == 413


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/x", {}, 401),
        ("/nowhere", BEARER, 404),
        ("/ignore", BEARER, 200),
    ],
)
def test_standard_client_sees_an_answer_that_does_not_wait_for_its_body(
    path: str, headers: dict[str, str], expected: int, running: Running
) -> None:
    assert post(running, path, b"x" * LIMIT, **headers)[0] == expected


def test_connection_is_kept_after_an_unread_body(running: Running) -> None:
    with running.connect() as caller:
        for _ in range(3):
            caller.sendall(b"POST /ignore HTTP/1.1\r\ncontent-length: 50000\r\n" + AUTHORIZED + b"\r\n")
            assert read_answer(caller)[0] == 200
            caller.sendall(b"x" * 50_000)


def test_refused_caller_with_expect_gets_no_continue(running: Running) -> None:
    head = b"POST /x HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n"
    received = running.send(head)
    assert status(received) == 401
    assert b"100 Continue" not in received


def test_uvicorns_limit_of_concurrency_is_kept() -> None:
    service = make_service(APIEndpoint("POST", "/x", echo))
    with Running(service, limit_concurrency=1).serving() as running:
        assert status(running.send(b"GET /health HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")) == 503


# --- WebSockets ---


class Frames:
    """A client of WebSockets (RFC 6455): short text frames."""

    def __init__(self, running: Running, path: str = "/ws") -> None:
        self.socket = running.connect()
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            b"GET " + path.encode() + b" HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\n"
            b"upgrade: WebSocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: " + key + b"\r\n\r\n"
        )
        self.head = b""
        while b"\r\n\r\n" not in self.head:
            self.head += self.socket.recv(1)

    @staticmethod
    def frame(text: str) -> bytes:
        data, mask = text.encode(), os.urandom(4)
        return struct.pack("!BB", 0x81, 0x80 | len(data)) + mask + bytes(b ^ mask[n % 4] for n, b in enumerate(data))

    def say(self, text: str) -> str:
        self.socket.sendall(self.frame(text))
        return self.hear()

    def hear(self) -> str:
        reader = self.socket.makefile("rb")
        _, length = reader.read(2)
        return str(reader.read(length).decode())


def sockets_app() -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{websocket.url.path} {text}")

    return app


@pytest.fixture(scope="module")
def sockets() -> Iterator[Running]:
    limits = ServerConfiguration(header_timeout=0.3, keep_alive=0.3, body_timeout=0.3, discard_timeout=0.3)
    with Running(sockets_app(), limits).serving() as running:
        yield running


def test_websocket_outlives_all_deadlines_of_http(sockets: Running) -> None:
    pytest.importorskip("wsproto")
    caller = Frames(sockets)
    with caller.socket:
        assert caller.head.startswith(b"HTTP/1.1 101 ")
        assert caller.say("one") == "/ws one"
        threading.Event().wait(1)  # longer than every deadline of this server
        assert caller.say("two") == "/ws two"


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /ws HTTP/1.1\r\nsec-websocket-key: eA==\r\ncontent-length: 2\r\n",
        b"GET /ws HTTP/1.1\r\nsec-websocket-key: eA==\r\ncontent-length: 2\r\n",
        b"GET /ws HTTP/1.1\r\ncontent-length: 2\r\n",
    ],
    ids=repr,
)
def test_half_a_handshake_is_a_request_like_others(request_: bytes, sockets: Running) -> None:
    offer = b"host: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n{}"
    after = b"GET /ws HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
    received = sockets.send(request_ + offer + after)
    assert received.count(b"HTTP/1.1 404 ") + received.count(b"HTTP/1.1 405 ") == 2


def test_handshake_without_a_websocket_library_is_a_request_like_others() -> None:
    with Running(sockets_app(), ws="none").serving() as running:
        head = b"GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n"
        assert status(running.send(head + b"sec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n")) == 404


# --- addresses ---


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_the_unspecified_address_of_ipv6_serves_both_families() -> None:
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"][0])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = bind("::", 0)
    config = uvicorn_config(app, 1)  # type: ignore[arg-type]
    config.lifespan = "off"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    try:
        for address in ("127.0.0.1", "::1"):
            with contextlib.closing(http.client.HTTPConnection(address, port, timeout=DEADLINE)) as client:
                client.request("GET", "/")
                assert client.getresponse().status == 204
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        listener.close()
    assert clients == ["127.0.0.1", "::1"], "an IPv4 address is told as such"


def test_address_is_logged_as_people_write_it() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, "127.0.0.1") == f"http://127.0.0.1:{port}"
        assert url_of(listener, "::") == f"http://[::]:{port}"
