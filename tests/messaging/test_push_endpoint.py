"""PUSH: the same outcomes as HTTP statuses; nothing runs for a caller who is not the broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request, Response

from messaging_kit import Handler, MemoryBus, make_router, succeed
from totoms import (
    Forbidden,
    NonRetryableError,
    ProcessingResponse,
    ProcessingStatus,
    TotoMessage,
    Unauthorized,
    Undecidable,
)
from totoms.logging import TotoLogger
from totoms.messages import encode_message
from totoms.push import PushEndpoint

BROKER = {"authorization": "Bearer the-broker"}


def request(body: bytes | TotoMessage, headers: dict[str, str]) -> Request:
    content = body if isinstance(body, bytes) else encode_message(body)

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    scope = {
        "type": "http", "method": "POST", "path": "/events", "query_string": b"", "scheme": "http",
        "server": ("127.0.0.1", 80), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    return Request(scope, receive)


def endpoint(bus: MemoryBus, handler: Any, max_concurrency: int = 4) -> PushEndpoint:
    return PushEndpoint(bus, make_router(handler), max_concurrency=max_concurrency, url=None, logger=TotoLogger("blog"))


POST = TotoMessage(type="postCreated")


async def answer(push: PushEndpoint, asked: Request) -> Response:
    answered = await push.respond(asked)
    return Response(answered, media_type="application/json") if isinstance(answered, bytes) else answered


def refusing(error: Exception) -> Handler:
    def process(_message: TotoMessage) -> Any:
        raise error

    return Handler(process)


async def test_genuine_delivery_runs_the_handler_once(bus: MemoryBus) -> None:
    handler = Handler(succeed)
    response = await answer(endpoint(bus, handler), request(POST, BROKER))
    assert response.status_code == 200
    assert len(handler.seen) == 1


async def test_unknown_type_is_answered_ignored(bus: MemoryBus) -> None:
    response = await answer(endpoint(bus, Handler(succeed)), request(TotoMessage(type="other"), BROKER))
    assert (response.status_code, response.body) == (200, b'{"status":"ignored"}')


@pytest.mark.parametrize(
    "handler", [Handler(lambda _: ProcessingResponse(ProcessingStatus.FAILED)), refusing(ValueError())]
)
async def test_failure_is_answered_500_so_that_the_broker_delivers_again(bus: MemoryBus, handler: Handler) -> None:
    response = await answer(endpoint(bus, handler), request(POST, BROKER))
    assert response.status_code == 500
    assert bus.dead == []


@pytest.mark.parametrize(
    ("handler", "body", "reason"),
    [
        (refusing(NonRetryableError("never")), POST, "non_retryable"),
        (Handler(succeed), b"not a message", "undecodable"),
    ],
)
async def test_hopeless_message_is_kept_and_answered_200(bus: MemoryBus, handler: Any, body: Any, reason: str) -> None:
    response = await answer(endpoint(bus, handler), request(body, BROKER))
    assert response.status_code == 200
    assert [why.reason for _, why in bus.dead] == [reason]


async def test_last_attempt_is_dead_lettered_and_answered_200(bus: MemoryBus) -> None:
    response = await answer(endpoint(bus, refusing(ValueError())), request(POST, {**BROKER, "x-attempt": "3"}))
    assert response.status_code == 200
    assert [why.reason for _, why in bus.dead] == ["attempts_exhausted"]


async def test_hopeless_message_that_cannot_be_kept_is_answered_503(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(bus, "_dead_letter", broken)
    with pytest.raises(Undecidable):
        await answer(endpoint(bus, Handler(succeed)), request(b"poison", BROKER))


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer a-user"}, {"authorization": "the-broker"}])
async def test_caller_who_is_not_the_broker_is_refused_and_no_handler_runs(
    bus: MemoryBus, headers: dict[str, str]
) -> None:
    handler = Handler(succeed)
    with pytest.raises(Unauthorized):
        await answer(endpoint(bus, handler), request(POST, headers))
    assert handler.seen == []


async def test_unreachable_keys_are_answered_503_not_401(bus: MemoryBus) -> None:
    bus.away = True
    handler = Handler(succeed)
    with pytest.raises(Undecidable):
        await answer(endpoint(bus, handler), request(POST, BROKER))
    assert handler.seen == []


async def test_handshake_is_answered_by_the_backend(bus: MemoryBus) -> None:
    response = await answer(endpoint(bus, Handler(succeed)), request(b"{}", {**BROKER, "x-handshake": "1"}))
    assert (response.status_code, response.body) == (200, b'{"validationResponse":"yes"}')


async def test_backend_without_push_is_closed(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    from totoms.bus import MessageBus

    monkeypatch.setattr(type(bus), "_accept_push", MessageBus._accept_push)
    bus.environment = type("Environment", (), {"hyperscaler": "memory"})()  # type: ignore[assignment]
    with pytest.raises(Forbidden):
        await answer(endpoint(bus, Handler(succeed)), request(POST, BROKER))


async def test_full_endpoint_answers_503_and_takes_again_when_a_slot_is_free(bus: MemoryBus) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def process(_message: TotoMessage) -> ProcessingResponse:
        begun.set()
        await go.wait()
        return ProcessingResponse(ProcessingStatus.SUCCESS)

    push = endpoint(bus, Handler(process), max_concurrency=1)
    first = asyncio.create_task(answer(push, request(POST, BROKER)))
    await begun.wait()
    with pytest.raises(Undecidable):
        await answer(push, request(POST, BROKER))
    go.set()
    assert (await first).status_code == 200
    assert (await answer(push, request(POST, BROKER))).status_code == 200


async def test_draining_endpoint_answers_503_and_finishes_what_it_has(bus: MemoryBus) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def process(_message: TotoMessage) -> ProcessingResponse:
        begun.set()
        await go.wait()
        return ProcessingResponse(ProcessingStatus.SUCCESS)

    push = endpoint(bus, Handler(process))
    first = asyncio.create_task(answer(push, request(POST, BROKER)))
    await begun.wait()
    stopping = asyncio.create_task(push.stop(10.0))
    await asyncio.sleep(0)
    with pytest.raises(Undecidable):
        await answer(push, request(POST, BROKER))
    go.set()
    await stopping
    assert (await first).status_code == 200
