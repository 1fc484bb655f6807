"""PUSH: the same outcomes as HTTP statuses; no handler runs for a caller that is not the broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request, Response

from support.messages.kit import SUBSCRIPTION, Handler, MemoryBus, make_router, succeed
from totoms import (
    Forbidden,
    NonRetryableError,
    ProcessingResponse,
    ProcessingStatus,
    RetryPolicy,
    TotoEvent,
    TotoMessage,
    Unauthorized,
    Undecidable,
    toto_handler,
)
from totoms.logging.logger import TotoLogger
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.function_handler import function_handler_of
from totoms.messages.message import encode_message
from totoms.messages.push.attempts import HandledMessages
from totoms.messages.push.endpoint import PushEndpoint
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

BROKER = {"authorization": "Bearer the-broker"}


def request(body: bytes | TotoMessage, headers: dict[str, str], method: str = "POST") -> Request:
    content = body if isinstance(body, bytes) else encode_message(body)

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": "/events",
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
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


async def test_message_is_dead_lettered_when_the_handler_itself_failed_so_often(bus: MemoryBus) -> None:
    handler = refusing(ValueError())
    push = endpoint(bus, handler)
    asked = [request(POST, {**BROKER, "x-attempt": attempt}) for attempt in ("70", "71", "72")]
    statuses = [(await answer(push, one)).status_code for one in asked]
    assert statuses == [500, 500, 200]
    assert [(why.reason, why.attempts) for _, why in bus.dead] == [("attempts_exhausted", 3)]
    assert [message.delivery.attempt for message in handler.seen if message.delivery] == [1, 2, 3]


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


async def test_headers_of_a_handshake_are_the_backends(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PushRequest] = []

    async def accept(pushed: PushRequest) -> PushReply:
        asked.append(pushed)
        return PushReply(headers={"WebHook-Allowed-Origin": "broker.example"})

    monkeypatch.setattr(bus, "_accept_push", accept)
    response = await answer(endpoint(bus, Handler(succeed)), request(b"", {}, "OPTIONS"))
    assert [pushed.method for pushed in asked] == ["OPTIONS"]
    assert (response.status_code, response.headers["webhook-allowed-origin"]) == (200, "broker.example")
    await answer(endpoint(bus, Handler(succeed)), request(b"", {}))
    assert asked[1].method == "POST"


async def test_backend_without_push_is_closed(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    from totoms.messages.bus import MessageBus

    monkeypatch.setattr(type(bus), "_accept_push", MessageBus._accept_push)
    bus.environment = type("Environment", (), {"hyperscaler": "memory"})()  # type: ignore[assignment]
    with pytest.raises(Forbidden):
        await answer(endpoint(bus, Handler(succeed)), request(POST, BROKER))


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


# --- several messages in one request ---


def several(bus: MemoryBus, *messages: tuple[str, bytes]) -> None:
    """Have each request bring these messages: ids and bodies."""

    async def accept(_request: PushRequest) -> list[Received]:
        return [Received(body, message_id, 1, SUBSCRIPTION) for message_id, body in messages]

    vars(bus).update(_accept_push=accept)


def post(name: str) -> bytes:
    return encode_message(TotoMessage(type="postCreated", id=name, timestamp="now", cid="c"))


def failing(*names: str) -> Handler:
    """Return a handler that fails for messages of these ids; `failing_now` can be emptied."""
    handler = Handler(lambda message: _fail() if message.id in failing_now else succeed(message))
    failing_now = vars(handler)["failing"] = set(names)
    return handler


def _fail() -> ProcessingResponse:
    return ProcessingResponse(ProcessingStatus.FAILED)


def seen(handler: Handler) -> list[str]:
    return sorted(message.id for message in handler.seen)


async def test_each_message_of_a_request_is_handled_whatever_becomes_of_the_others(bus: MemoryBus) -> None:
    several(bus, ("1", post("a")), ("2", post("bad")), ("3", b"poison"), ("4", post("c")))
    handler = failing("bad")
    assert (await answer(endpoint(bus, handler), request(b"", {}))).status_code == 500
    assert seen(handler) == ["a", "bad", "c"]
    assert [received.message_id for received, _ in bus.dead] == ["3"]


async def test_request_whose_messages_are_all_settled_is_answered_200(bus: MemoryBus) -> None:
    several(bus, ("1", post("a")), ("2", b"poison"), ("3", encode_message(TotoMessage(type="other"))))
    response = await answer(endpoint(bus, Handler(succeed)), request(b"", {}))
    assert (response.status_code, response.body) == (200, b'{"status":"success"}')


async def test_request_whose_messages_are_all_of_unknown_types_is_answered_ignored(bus: MemoryBus) -> None:
    several(bus, *((name, encode_message(TotoMessage(type="other"))) for name in "123"))
    response = await answer(endpoint(bus, Handler(succeed)), request(b"", {}))
    assert (response.status_code, response.body) == (200, b'{"status":"ignored"}')


async def test_request_without_messages_is_answered_200(bus: MemoryBus) -> None:
    several(bus)
    response = await answer(endpoint(bus, Handler(succeed)), request(b"", {}))
    assert (response.status_code, response.body) == (200, b'{"status":"success"}')


async def test_messages_that_were_settled_are_skipped_when_the_request_comes_again(bus: MemoryBus) -> None:
    several(bus, ("1", post("a")), ("2", post("bad")), ("3", b"poison"))
    handler = failing("bad")
    push = endpoint(bus, handler)
    for _ in range(2):  # skipped, and not forgotten, as long as the request fails
        assert (await answer(push, request(b"", {}))).status_code == 500
    assert seen(handler) == ["a", "bad", "bad"]
    vars(handler)["failing"].clear()
    assert (await answer(push, request(b"", {}))).status_code == 200
    assert seen(handler) == ["a", "bad", "bad", "bad"]
    assert len(bus.dead) == 1
    assert (await answer(push, request(b"", {}))).status_code == 200
    assert seen(handler).count("a") == 2, "skipped more than once"


async def test_message_that_was_settled_is_skipped_when_it_comes_again_alone(bus: MemoryBus) -> None:
    several(bus, ("1", post("a")), ("2", post("bad")))
    handler = failing("bad")
    push = endpoint(bus, handler)
    await answer(push, request(b"", {}))
    several(bus, ("1", post("a")))
    assert (await answer(push, request(b"", {}))).status_code == 200
    assert seen(handler) == ["a", "bad"]


async def test_another_message_with_the_same_id_is_not_skipped(bus: MemoryBus) -> None:
    several(bus, ("1", post("a")), ("2", post("bad")), ("", post("b")))
    handler = failing("bad")
    push = endpoint(bus, handler)
    await answer(push, request(b"", {}))
    several(bus, ("1", post("c")), ("", post("b")))
    assert (await answer(push, request(b"", {}))).status_code == 200
    assert seen(handler) == ["a", "b", "b", "bad", "c"]


async def test_message_that_came_twice_in_a_request_and_failed_once_is_not_skipped(bus: MemoryBus) -> None:
    several(bus, ("1", post("a")), ("1", post("a")))
    answers = iter([succeed(TotoMessage(type="x")), _fail()])
    handler = Handler(lambda message: next(answers, succeed(message)))
    push = endpoint(bus, handler, max_concurrency=1)
    assert (await answer(push, request(b"", {}))).status_code == 500
    assert (await answer(push, request(b"", {}))).status_code == 200
    assert len(handler.seen) == 4


async def test_single_message_is_handled_each_time_it_is_pushed(bus: MemoryBus) -> None:
    handler = failing("bad")
    push = endpoint(bus, handler)
    for name in ("a", "bad", "a", "bad"):
        several(bus, (name, post(name)))
        await answer(push, request(b"", {}))
    assert seen(handler) == ["a", "a", "bad", "bad"]


async def test_message_that_cannot_be_kept_does_not_keep_the_others_from_being_handled(bus: MemoryBus) -> None:
    keep = bus._dead_letter

    async def broken(received: Received, reason: DeadLetterReason) -> None:
        if received.message_id == "1":
            raise OSError("disk full")
        await keep(received, reason)

    vars(bus).update(_dead_letter=broken)
    several(bus, ("1", b"poison"), ("2", b"more poison"), ("3", post("a")))
    handler = Handler(succeed)
    push = endpoint(bus, handler, max_concurrency=1)
    with pytest.raises(Undecidable):
        await answer(push, request(b"", {}))
    assert seen(handler) == ["a"]
    vars(bus).update(_dead_letter=keep)
    assert (await answer(push, request(b"", {}))).status_code == 200
    assert seen(handler) == ["a"]
    assert sorted(received.message_id for received, _ in bus.dead) == ["1", "2"]


async def test_messages_of_requests_are_handled_at_the_same_time_up_to_the_limit(bus: MemoryBus) -> None:
    numbers = iter(range(20))

    async def accept(_request: PushRequest) -> list[Received]:
        ten = [str(next(numbers)) for _ in range(10)]
        return [Received(post(number), number, 1, SUBSCRIPTION) for number in ten]

    vars(bus).update(_accept_push=accept)
    running, most, full, go = 0, 0, asyncio.Event(), asyncio.Event()

    async def process(message: TotoMessage) -> ProcessingResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await go.wait()
        running -= 1
        return succeed(message)

    handler = Handler(process)
    push = endpoint(bus, handler, max_concurrency=3)
    asked = [asyncio.create_task(answer(push, request(b"", {}))) for _ in range(2)]
    async with asyncio.timeout(120):
        await full.wait()
        go.set()
        assert [(await one).status_code for one in asked] == [200, 200]
    assert (most, len(handler.seen)) == (3, 20)


def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten_first() -> None:
    repeats = HandledMessages(most=3)
    messages = [Received(b"x", str(number), 1, SUBSCRIPTION) for number in range(5)]
    repeats.add(messages, ())
    assert repeats.take(messages) == set(messages[2:])
    assert repeats.take(messages) == set()


def test_message_of_another_subscription_is_not_a_repeat() -> None:
    repeats = HandledMessages()
    repeats.add([Received(b"x", "1", 1, SUBSCRIPTION)], ())
    assert repeats.take([Received(b"x", "1", 1, Subscription("other", "t", "posts"))]) == set()


async def test_genuine_pushes_and_confirmations_are_signs_of_a_subscription(bus: MemoryBus) -> None:
    seen: list[str] = []
    push = PushEndpoint(
        bus, make_router(Handler(succeed)), max_concurrency=4, url=None, logger=TotoLogger("blog"), on_push=seen.append
    )
    with pytest.raises(Unauthorized):
        await push.respond(request(POST, {}))
    await push.respond(request(POST, {**BROKER, "x-handshake": "yes"}))
    assert seen == []  # a handshake that names no topic
    await push.respond(request(POST, BROKER))
    assert seen == ["posts"]


async def test_message_of_a_newer_version_waits_for_a_deployment_whatever_the_broker_does(bus: MemoryBus) -> None:
    class First(TotoEvent, type="postCreated"):
        slug: str

    @toto_handler
    async def handle(message: TotoMessage[First]) -> None:
        raise AssertionError("it must not run")

    function = function_handler_of(handle)
    assert function is not None
    now = [0.0]
    router = make_router(function.bind(lambda: None))  # type: ignore[arg-type, return-value]
    router._retry = RetryPolicy(2, 1.0, 300.0)
    push = PushEndpoint(bus, router, max_concurrency=4, url=None, logger=TotoLogger("blog"), clock=lambda: now[0])
    newer = {**BROKER, "x-version": "2"}
    assert (await answer(push, request(POST, newer))).status_code == 500
    for now[0] in (1.0, 299.0):
        with pytest.raises(Undecidable) as raised:
            await answer(push, request(POST, newer))
        assert raised.value.retry_after == 300 - now[0]
    assert bus.dead == []
    now[0] = 300.0
    assert (await answer(push, request(POST, newer))).status_code == 200
    assert [(why.reason, why.attempts) for _, why in bus.dead] == [("unknown_version", 2)]
