"""What arrives on a socket: a real server, and callers that do not keep to HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse

from support.http.app import Log, make_service
from support.http.sockets import AUTHORIZED, DEADLINE, Running, read_all, read_answer, status
from totoms import APIEndpoint, ExecutionContext, ServerConfiguration, UserContext, toto_delegate
from totoms.http.server.protocol import HTTPProtocol
from totoms.http.server.server import Server, bind, uvicorn_config


@toto_delegate
async def item(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return {"a": 1}


@toto_delegate
async def echo(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return await request.json()


@toto_delegate
async def stream(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    count = int(request.query_params["count"])
    return StreamingResponse(b"x" * 50_000 for _ in range(count))


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    endpoints = [APIEndpoint("GET", "/x", item), APIEndpoint("POST", "/x", echo), APIEndpoint("GET", "/stream", stream)]
    service = make_service(*endpoints, max_body_bytes=100_000)
    running = Running(service)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def impatient() -> Iterator[Running]:
    endpoints = [APIEndpoint("GET", "/x", item), APIEndpoint("POST", "/x", echo)]
    limits = ServerConfiguration(header_timeout=0.2, body_timeout=0.2)
    with Running(make_service(*endpoints), limits).serving() as running:
        yield running


@pytest.fixture(autouse=True)
def next_good_request_works(running: Running) -> Iterator[None]:
    yield
    answer = running.send(b"GET /x HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert answer.endswith(b'{"a":1}')


POST = b"POST /x HTTP/1.1\r\n" + AUTHORIZED


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        POST + b"content-length: -2\r\n\r\n{}",
        POST + b"content-length: 2x\r\n\r\n{}",
        POST + b"content-length : 2\r\n\r\n{}",
        POST + b"transfer-encoding: chunked, identity\r\n\r\n{}",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        POST + b"bad header\r\n\r\n",
        POST + b"a: b\x00c\r\n\r\n",
        POST + b" folded: yes\r\n\r\n",
        b"GET /x HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\x00 HTTP/1.1\r\nhost: test\r\n\r\n",
    ],
    ids=lambda r: repr(r.removeprefix(POST)[-60:]),
)
def test_request_that_two_servers_could_read_differently_is_refused(request_: bytes, running: Running) -> None:
    assert status(running.send(request_)) == 400


def test_caller_that_sends_nothing_is_dropped(impatient: Running) -> None:
    assert status(impatient.send()) == 408


def test_headers_sent_byte_by_byte_are_dropped(impatient: Running) -> None:
    with impatient.connect() as caller:
        caller.sendall(b"GET /x HTTP/1.1\r\n")
        caller.settimeout(0.02)
        received = b""
        for _ in range(int(DEADLINE / 0.02)):
            try:
                caller.sendall(b"a: b\r\n")
                received += caller.recv(1000)
            except TimeoutError:
                continue
            except OSError:
                break
            if received:
                break
    assert status(received) == 408


def test_empty_lines_keep_no_connection_open(impatient: Running) -> None:
    with impatient.connect() as caller:
        caller.sendall(b"GET /x HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
        assert read_answer(caller)[0] == 200
        caller.sendall(b"\r\n")
        assert status(read_all(caller)) == 408


def test_body_that_stops_is_dropped(impatient: Running) -> None:
    assert impatient.send(POST + b"content-length: 10\r\n\r\n{") == b""


def test_second_request_may_come_late_within_keep_alive(impatient: Running) -> None:
    with impatient.connect() as caller:
        for _ in range(3):
            caller.sendall(b"GET /x HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
            assert read_answer(caller)[0] == 200
            threading.Event().wait(0.3)  # longer than the deadline for headers, shorter than keep-alive


@pytest.mark.parametrize("piece", [b"a: " + b"x" * 1000 + b"\r\n", b"x" * 1000])
def test_headers_without_end_are_refused(piece: bytes, running: Running) -> None:
    with running.connect() as caller:
        caller.sendall(b"GET /x HTTP/1.1\r\nx: ")
        try:
            for _ in range(1000):
                caller.sendall(piece)
        except OSError:
            pass
        answer = read_all(caller)
    assert not answer or status(answer) == 431


def test_token_of_20_mb_is_not_read(running: Running) -> None:
    with running.connect() as caller:
        caller.sendall(b"GET /x HTTP/1.1\r\nauthorization: Bearer ")
        with pytest.raises(OSError, match=r"reset|pipe|abort"):
            caller.sendall(b"A" * 20_000_000)


def test_body_over_the_limit_is_refused_by_its_length_without_reading_it(running: Running) -> None:
    answer = running.send(POST + b"content-length: 1000000000000\r\n\r\n")
    assert status(answer) == 413
    assert b"connection: close" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == 413


def test_chunked_body_over_the_limit_is_refused_while_it_comes(running: Running) -> None:
    with running.connect() as caller:
        caller.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(100_000):
                caller.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        except OSError:
            pass
        else:
            pytest.fail("100 MB were taken")
        answer = read_all(caller)
    assert not answer or status(answer) == 413


def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    with running.connect() as caller:
        bodies = [json.dumps({"n": number}).encode() for number in range(20)]
        caller.sendall(b"".join(POST + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies))
        found = [read_answer(caller) for _ in bodies]
    assert [json.loads(body)["n"] for _, _, body in found] == list(range(20))
    assert len({headers["x-correlation-id"] for _, headers, _ in found}) == 20


def test_body_in_pieces_is_put_together(running: Running) -> None:
    body = json.dumps({"data": "é" * 20_000}, ensure_ascii=False).encode()
    with running.connect() as caller:
        caller.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 7000):
            piece = body[start : start + 7000]
            caller.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        caller.sendall(b"0\r\n\r\n")
        code, headers, answer = read_answer(caller)
    assert code == 200
    assert json.loads(answer) == json.loads(body)
    assert "server" not in headers


def test_expect_continue_is_answered(running: Running) -> None:
    with running.connect() as caller:
        caller.sendall(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert caller.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(b"{}")
        assert read_answer(caller)[2] == b"{}"


def test_large_stream_arrives_whole_and_waits_for_a_slow_reader(running: Running) -> None:
    answer = running.send(b"GET /stream?count=200 HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED + b"\r\n")
    assert answer.count(b"x" * 50_000) == 200


def test_caller_that_disconnects_early_does_not_affect_others(running: Running) -> None:
    for _ in range(20):
        with running.connect() as caller:
            caller.sendall(b"GET /stream?count=2000 HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
            caller.recv(1000)
        with running.connect() as caller:
            caller.sendall(POST + b"content-length: 1000\r\n\r\n{")


def test_raw_garbage_does_not_affect_others(running: Running) -> None:
    for _ in range(20):
        running.send(os.urandom(2000), b"\r\n\r\n")


def test_evil_bytes_in_the_path_reach_the_log_escaped(running: Running) -> None:
    with Log().collecting() as log:
        running.send(b"GET /%0d%0aforged%1b HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED + b"\r\n")
    assert any("\\r\\nforged\\x1b" in record["message"] for record in log.records())


def test_the_server_uses_this_protocol() -> None:
    assert uvicorn_config(make_service().app, 1).http.__mro__[1] is HTTPProtocol


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
async def test_flood_of_connections_is_accepted_in_small_steps() -> None:
    """Otherwise it uses up all descriptors before the first connection is known."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    listener = bind("127.0.0.1", 0)
    server = Server(uvicorn_config(make_service().app, 1), lambda: None)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([listener])
    clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
    try:
        steps, before = [], descriptors()
        async with asyncio.timeout(60):
            while sum(steps) < len(clients):
                await asyncio.sleep(0)
                steps.append(descriptors() - before - sum(steps))
            while len(server.server_state.connections) < len(clients):
                await asyncio.sleep(0)
        assert max(steps) < 16
    finally:
        for client in clients:
            client.close()
        await server.shutdown([listener])
