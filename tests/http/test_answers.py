"""What a server must never send, and what it logs of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from support.http.app import Log, make_service
from support.http.sockets import AUTHORIZED, Running, status
from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate
from totoms.http.server.response_heads import ResponseHead, check_headers


@toto_delegate
async def header(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    name, _, value = (await request.body()).partition(b"=")
    response = Response(b"hello")
    response.raw_headers.append((name, value))
    return response


@toto_delegate
async def length(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    response = Response(b"hello")
    response.raw_headers[:] = [(b"content-length", await request.body())]
    return response


@toto_delegate
async def bodiless(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return Response(status_code=int(request.query_params["status"]))


@toto_delegate
async def deep(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    value: Any = []
    for _ in range(int(request.query_params["depth"])):
        value = [value]
    return value


@toto_delegate
async def stream(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return StreamingResponse(iter([b"a", b"b"]))


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    endpoints = [
        APIEndpoint("POST", "/header", header),
        APIEndpoint("POST", "/length", length),
        APIEndpoint("GET", "/bodiless", bodiless),
        APIEndpoint("GET", "/deep", deep),
        APIEndpoint("GET", "/stream", stream),
        APIEndpoint("HEAD", "/stream", stream),
    ]
    with Running(make_service(*endpoints)).serving() as running:
        yield running


def get(path: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\nconnection: close\r\n" + AUTHORIZED + b"\r\n"


@pytest.mark.parametrize(
    "pair",
    [
        b"x-a=b\r\nset-cookie: c=d",
        b"x-a=b\nc",
        b"x-a=b\rc",
        b"x-a=b\x00c",
        b"x-a\r\nx=b",
        b"x a=b",
        b"x:a=b",
        b"=b",
    ],
    ids=repr,
)
def test_header_that_would_start_another_is_500_and_logged_once(pair: bytes, running: Running) -> None:
    with Log().collecting() as log:
        request = b"POST /header HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n" % len(pair)
        received = running.send(request + AUTHORIZED + b"\r\n" + pair)
    assert status(received) == 500
    assert received.count(b"HTTP/1.1") == 1
    assert b"set-cookie" not in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == 500
    errors = [record for record in log.records() if record["severity"] == "ERROR"]
    assert len(errors) == 1, log.text
    assert "header" in json.dumps(errors[0])


def test_head_of_a_response_is_checked_by_the_server_as_well() -> None:
    def head(*headers: tuple[bytes, bytes]) -> ResponseHead:
        return ResponseHead(200, headers, [(b"date", b"now")], "GET", "1.1", False)

    assert head((b"x-a", b"b"), (b"x-b", b"caf\xe9\t1")).data.count(b"\r\n") == 6
    for bad in [(b"x-a", b"b\r\nc: d"), (b"x-a", b"b\n"), (b"x-a", b"\x00"), (b"x\n", b"a"), (b"x y", b"a")]:
        with pytest.raises(ValueError, match="header"):
            head(bad)
        with pytest.raises(ValueError, match="header"):
            check_headers([bad])


@pytest.mark.parametrize("code", [0, 99, 100, 101, 103, 199, 1000])
def test_status_that_is_not_a_final_answer_is_500(code: int, running: Running) -> None:
    """To a caller, 100 is not the answer: it would take the next one for it."""
    with Log().collecting() as log:
        received = running.send(
            b"GET /bodiless?status=%d HTTP/1.1\r\nconnection: close\r\n" % code + AUTHORIZED + b"\r\n"
        )
    assert status(received) == 500
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"Internal server error" in received
    assert "ValueError" in log.text


@pytest.mark.parametrize("value", [b"-5", b"+5", b"0_5", b" 5", b"5 ", b"5, 5", b"", b"five", b"\xb2"], ids=repr)
@pytest.mark.parametrize("app", ["totoms", "any"])
def test_malformed_length_is_500(value: bytes, app: str, running: Running) -> None:
    async def any_app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", value)]})
        await send({"type": "http.response.body", "body": b"hello"})

    if app == "totoms":
        received = running.send(b"POST /length HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED + _sized(value) + value)
        assert b"Internal server error" in received
    else:
        with Running(any_app).serving() as other:
            received = other.send(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    assert status(received) == 500


@pytest.mark.parametrize("second", [b"5", b"6"])
def test_two_lengths_are_500(second: bytes, running: Running) -> None:
    pair = b"content-length=" + second
    received = running.send(b"POST /header HTTP/1.1\r\nconnection: close\r\n" + AUTHORIZED + _sized(pair) + pair)
    assert status(received) == 500


def _sized(body: bytes) -> bytes:
    return b"content-length: %d\r\n\r\n" % len(body)


@pytest.mark.parametrize("code", [204, 304])
def test_status_without_a_body_has_none(code: int, running: Running) -> None:
    received = running.send(get(b"/bodiless?status=%d" % code))
    assert status(received) == code
    assert received.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in received
    assert b"content-length" not in received or code == 304


def test_stream_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0(running: Running) -> None:
    assert running.send(get(b"/stream")).endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    received = running.send(get(b"/stream", b"1.0"))
    assert received.endswith(b"\r\n\r\nab")
    assert b"transfer-encoding" not in received


def test_head_gets_no_body(running: Running) -> None:
    received = running.send(get(b"/stream", method=b"HEAD"))
    assert status(received) == 200
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_very_deep_json_is_500_with_the_reason_in_the_log(depth: int, running: Running) -> None:
    with Log().collecting() as log:
        received = running.send(get(b"/deep?depth=%d" % depth))
    assert status(received) == 500
    errors = [record for record in log.records() if record["severity"] == "ERROR"]
    assert len(errors) == 1
    assert "deep" in errors[0]["message"] + str(errors[0])


def test_path_in_the_log_is_cut(running: Running) -> None:
    with Log().collecting() as log:
        assert status(running.send(get(b"/" + b"x" * 30_000))) == 404
    lines = [record["message"] for record in log.records() if "xxx" in record["message"]]
    assert len(lines) == 1
    assert len(lines[0]) < 2200
    assert "30001 characters" in lines[0]
