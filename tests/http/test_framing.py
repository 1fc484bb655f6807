"""Where a request begins and ends, so that a proxy in front and the server never read it differently (RFC 9112)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request

from support.http.app import make_service
from support.http.sockets import AUTHORIZED, Running, read_all, read_answer, status
from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate

SIZE = b"POST /size HTTP/1.1\r\n" + AUTHORIZED
SECOND = b"GET /size HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
LAST = b"GET /size HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED + b"\r\n"
CHUNKED = SIZE + b"transfer-encoding: chunked\r\n\r\n"


@toto_delegate
async def size(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    body = await request.body()
    return {
        "size": len(body),
        "path": request.url.path,
        "query": request.url.query,
        "host": request.headers.get("host"),
        "names": sorted(set(request.headers)),
        "client": request.client.host if request.client else None,
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    endpoints = [APIEndpoint(method, "/size", size) for method in ("GET", "POST")]
    with Running(make_service(*endpoints)).serving() as running:
        yield running


def answers(received: bytes) -> list[int]:
    """Return the statuses of all answers in `received`."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        found.append(status(head))
        received = rest[int(lines[b"content-length"]) :]
    return found


# --- upgrades that are not taken ---


@pytest.mark.parametrize("token", ["with", "without"])
@pytest.mark.parametrize("offer", [b"h2c", b"foo", b"h2c, websocket", b"websocket"])
def test_body_after_an_upgrade_that_is_not_taken_is_the_body(offer: bytes, token: str, running: Running) -> None:
    head = SIZE if token == "with" else b"POST /size HTTP/1.1\r\nhost: test\r\n"
    head += b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAMAAABkAAQBAAAAAAIAAAAA\r\nupgrade: " + offer
    smuggled = b"GET /size?smuggled HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    received = running.send(head + b"\r\ncontent-length: %d\r\n\r\n" % len(smuggled) + smuggled + LAST)
    assert answers(received) == [200 if token == "with" else 401, 200]
    if token == "with":
        assert f'"size":{len(smuggled)}'.encode() in received
    assert b"smuggled" not in received


def test_chunked_body_after_an_upgrade_is_the_body(running: Running) -> None:
    head = SIZE + b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n"
    received = running.send(head + b"5\r\nhello\r\n0\r\n\r\n" + LAST)
    assert answers(received) == [200, 200]
    assert b'"size":5' in received


def test_upgrade_without_a_body_is_answered_as_usual(running: Running) -> None:
    head = b"GET /size HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n" + AUTHORIZED
    assert answers(running.send(head + b"\r\n" + LAST)) == [200, 200]


# --- trailers and chunk extensions ---


def test_trailers_are_no_headers(running: Running) -> None:
    trailers = b"authorization: Bearer x\r\nhost: evil\r\nx-correlation-id: forged\r\nx-late: 1\r\n"
    with running.connect() as caller:
        caller.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
        code, headers, body = read_answer(caller)
    assert code == 200
    assert headers["x-correlation-id"] != "forged"
    assert json.loads(body)["host"] == "test"
    assert "x-late" not in json.loads(body)["names"]


def test_token_in_a_trailer_is_none(running: Running) -> None:
    head = b"POST /size HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    with running.connect() as caller:
        caller.sendall(head + AUTHORIZED.split(b"\r\n", 1)[1] + b"\r\n")
        assert read_answer(caller)[0] == 401


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"0\r\n", b"a: " + b"x" * 1000 + b"\r\n"),
        (b"0\r\na: ", b"x" * 1000),
        (b"", b"1;a=" + b"x" * 1000 + b"\r\nx\r\n"),
        (b"1;a=", b"x" * 1000),
        (b"", b"0" * 1000),
    ],
    ids=["trailers", "endless trailer", "extensions", "endless extension", "endless size"],
)
def test_trailers_and_extensions_are_bounded_with_the_headers(start: bytes, piece: bytes, running: Running) -> None:
    assert status(flood(running, CHUNKED + start, piece)) in (431, 400)


def flood(running: Running, start: bytes, piece: bytes) -> bytes:
    """Send without end until the server has had enough; return its answer."""
    with running.connect() as caller:
        caller.sendall(start)
        try:
            for _ in range(10_000):
                caller.sendall(piece * 10)
        except OSError:
            pass
        else:
            pytest.fail("100 MB were taken")
        return read_all(caller)


@pytest.mark.parametrize(
    "framing",
    [
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n : x\r\n\r\n",
        b"0\r\na: b\x00\r\n\r\n",
        b"0\r\na: b\n\r\n",
        b"2\n{}\r\n0\r\n\r\n",
        b"2\r\n{}X\r\n0\r\n\r\n",
        b"2\r\n{}\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b"2;a\rb\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"+2\r\n{}\r\n0\r\n\r\n",
        b"2_0\r\n{}\r\n0\r\n\r\n",
        b"\r\n2\r\n{}\r\n0\r\n\r\n",
        b"11111111111111111\r\n{}",
    ],
    ids=repr,
)
def test_malformed_framing_is_refused(framing: bytes, running: Running) -> None:
    assert status(running.send(CHUNKED + framing)) == 400


def test_chunked_body_may_come_byte_by_byte(running: Running) -> None:
    with running.connect() as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CHUNKED + b'5;a="b"\r\nhello\r\n6\r\n world\r\n0\r\nx-t: 1\r\n\r\n' + SECOND:
            caller.sendall(bytes([byte]))
        assert json.loads(read_answer(caller)[2])["size"] == 11
        assert read_answer(caller)[0] == 200


# --- lengths, hosts, targets, versions ---


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (b"transfer-encoding: gzip, chunked\r\n", 501),
        (b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501),
        (b"transfer-encoding: identity, chunked\r\n", 501),
        (b"transfer-encoding: chunked, chunked\r\n", 400),
        (b"transfer-encoding: chunked, gzip\r\n", 400),
        (b"transfer-encoding: gzip\r\n", 400),
        (b"transfer-encoding: xchunked\r\n", 400),
        (b"transfer-encoding:\r\ncontent-length: 2\r\n", 400),
        (b"transfer-encoding: \x0bchunked\r\n", 400),
        (b"transfer-encoding: ,chunked\r\n", 400),
        (b"transfer-encoding: chunked,\r\n", 400),
        (b"transfer-encoding: chunked\r\ntransfer-encoding: ,\r\n", 400),
        (b"content-length: 2\r\ncontent-length: 2\r\n", 400),
        (b"content-length: 2, 2\r\n", 400),
        (b"content-length:\r\n", 400),
        (b"content-length: 0x2\r\n", 400),
        (b"content-length: +2\r\n", 400),
        (b"content-length: 99999999999999999999999\r\n", 400),
        (b"host: other\r\n", 400),
        (b"a: b\rc: d\r\n", 400),
        (b"a: b\nc: d\r\n", 400),
        (b"a: b\r\n\tc\r\n", 400),
        (b": b\r\n", 400),
        (b"a b: c\r\n", 400),
    ],
    ids=repr,
)
def test_ambiguous_request_is_refused_and_the_connection_closed(
    headers: bytes, expected: int, running: Running
) -> None:
    received = running.send(SIZE + headers + b"\r\n{}" + SECOND)
    assert answers(received) == [expected]
    assert b"connection: close" in received


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /size HTTP/1.1\r\n\r\n", 400),
        (b"GET /size HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        (b"GET /size HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
        (b"GET /size HTTP/1.1\r\nhost: me@test\r\n\r\n", 400),
        (b"GET http://me@test/size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET ftp://test/size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET test/size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /size#part HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /size HTTP/2.0\r\nhost: test\r\n\r\n", 505),
        (b"GET /size RTSP/1.0\r\nhost: test\r\n\r\n", 400),
        (b"OPTIONS /size RTSP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"DESCRIBE /size RTSP/1.0\r\nhost: test\r\n\r\n", 400),
        (b"SOURCE /size ICE/1.0\r\nhost: test\r\n\r\n", 400),
        (b"GET  /size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /size  HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /size HTTP/1.1 \r\nhost: test\r\n\r\n", 400),
        (b"GET\t/size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b" GET /size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"get /size HTTP/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /size http/1.1\r\nhost: test\r\n\r\n", 400),
        (b"GET /size\r\nhost: test\r\n\r\n", 505),
        (b"CONNECT test:443 HTTP/1.1\r\nhost: test\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n", 404),
        (b"GET /size HTTP/1.1\nhost: test\n\n", 400),
    ],
    ids=repr,
)
def test_request_line_and_host(request_: bytes, expected: int, running: Running) -> None:
    assert status(running.send(request_)) == expected


@pytest.mark.parametrize("cut", [1, 5, 12, 15, 18, 24, 45, 55])
def test_request_line_in_pieces_is_judged_as_a_whole(cut: int, running: Running) -> None:
    head = b"\r\nGET /size RTSP/1.0\r\nhost: test\r\n\r\n"
    assert status(running.send(head[:cut], head[cut:])) == 400
    with running.connect() as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (LAST[:cut], LAST[cut:]):
            caller.sendall(piece)
        assert read_answer(caller)[0] == 200


@pytest.mark.parametrize("value", [b"close", b"keep-alive"])
def test_connection_to_a_proxy_says_nothing_to_us(value: bytes, running: Running) -> None:
    first = SECOND.replace(b"\r\n\r\n", b"\r\nproxy-connection: " + value + b"\r\n\r\n")
    assert answers(running.send(first + SECOND + LAST)) == [200, 200, 200]


def test_absolute_target_is_served_and_its_host_counts(running: Running) -> None:
    with running.connect() as caller:
        caller.sendall(b"GET http://other.example:80/size?a=b HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
        code, _, body = read_answer(caller)
    told = json.loads(body)
    assert (code, told["path"], told["query"], told["host"]) == (200, "/size", "a=b", "other.example:80")


def test_local_service_judges_the_host_of_an_absolute_target() -> None:
    with Running(make_service(APIEndpoint("GET", "/size", size), host="127.0.0.1")).serving() as running:
        answer = running.send(
            b"GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
    assert status(answer) == 400


def test_http_1_0_is_answered_and_closed(running: Running) -> None:
    received = running.send(b"GET /health HTTP/1.0\r\n\r\n" + SECOND)
    assert status(received) == 200
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received
    assert b"transfer-encoding" not in received


def test_empty_lines_before_a_request_are_skipped(running: Running) -> None:
    assert answers(running.send(b"\r\n\r\n" + SECOND + b"\r\n" + LAST)) == [200, 200]


# --- pipelines ---


def test_two_thousand_pipelined_requests_get_one_answer_each_in_order(running: Running) -> None:
    count = 2000
    requests = [
        b"GET /size?%d HTTP/1.1\r\n" % n + AUTHORIZED + b"\r\n"
        if n % 2
        else b"POST /size?%d HTTP/1.1\r\n" % n + AUTHORIZED + b"content-length: 2\r\n\r\n{}"
        for n in range(count)
    ]
    with running.connect() as caller:
        sender = caller.dup()
        thread = threading.Thread(target=sender.sendall, args=(b"".join(requests),))
        thread.start()
        reader = caller.makefile("rb")
        seen = []
        for _ in range(count):
            assert b" 200 " in reader.readline()
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                if name == b"content-length":
                    length = int(value)
            seen.append(int(json.loads(reader.read(length))["query"]))
        thread.join()
        sender.close()
        reader.close()
    assert seen == list(range(count))


@pytest.mark.parametrize("pieces", ["at once", "in pieces"])
def test_headers_over_the_limit_are_refused(pieces: str, running: Running) -> None:
    request_ = b"GET /size HTTP/1.1\r\nhost: test\r\nx: " + b"x" * 70_000 + b"\r\n\r\n"
    parts = [request_] if pieces == "at once" else [request_[at : at + 500] for at in range(0, len(request_), 500)]
    assert status(running.send(*parts)) == 431


def test_headers_just_under_the_limit_are_taken(running: Running) -> None:
    head = b"GET /size HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED
    fill = 64 * 1024 - len(head) - len(b"x: \r\n\r\n")
    assert status(running.send(head + b"x: " + b"x" * fill + b"\r\n\r\n")) == 200
    assert status(running.send(head + b"x: " + b"x" * (fill + 1) + b"\r\n\r\n")) == 431
