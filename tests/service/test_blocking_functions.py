"""Delegates and handlers written as `def`: as many as are allowed run at a time, and nothing else waits for them."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Query, Request

from support.http.app import KeyServer, make_service, rsa_key, token
from support.messages.by_name import Through
from support.messages.kit import SUBSCRIPTION, MemoryBus
from totoms import (
    APIConfiguration,
    APIEndpoint,
    ConfigurationError,
    ExecutionContext,
    MessageBusConfig,
    OIDCIssuer,
    ProcessingResponse,
    ProcessingStatus,
    RetryPolicy,
    TotoMessage,
    UserContext,
    toto_delegate,
)
from totoms.logging.logger import TotoLogger
from totoms.messages.consumer import Consumer
from totoms.messages.receiver import Received
from totoms.messages.router import MessageRouter
from totoms.threads import Workers, run_in_thread, run_transfer

DEADLINE = 120.0
ISSUER = "https://issuer.example"
HANDLERS = 16
DELEGATES = 60


class Blocked:
    """Functions that have begun, and block until they are let go."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.begun = 0
        self._open = False
        self._changed = threading.Condition()

    def block(self) -> None:
        with self._changed:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open)
            self.running -= 1

    def release(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def _wait(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.running >= number, DEADLINE)

    async def until_running(self, number: int) -> None:
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            found = self._wait(number)
            loop.call_soon_threadsafe(waiter.set_result, found)

        threading.Thread(target=wait, daemon=True).start()
        assert await waiter, f"{self.running} of {number} run at a time"


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    blocked = Blocked()
    yield blocked
    blocked.release()


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    server.keys["one"] = rsa_key()
    with server.running():
        yield server


def blocking_handler(blocked: Blocked) -> Any:
    class Blocking:
        def get_handled_message_type(self) -> str:
            return "postCreated"

        def process_message(self, message: TotoMessage) -> ProcessingResponse:
            blocked.block()
            return ProcessingResponse(ProcessingStatus.SUCCESS)

    return Blocking()


def router_of(handler: Any, **options: Any) -> MessageRouter:
    return MessageRouter([handler], retry=RetryPolicy(3, 0.0, 0.0), timeout=60.0, logger=TotoLogger("blog"), **options)


@asynccontextmanager
async def busy_service(blocked: Blocked, key_server: KeyServer) -> AsyncIterator[Any]:
    """A service with 60 blocked delegates and 16 blocked handlers."""

    @toto_delegate
    def block(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str:
        blocked.block()
        return "done"

    @toto_delegate
    def block_with_parameters(request: Request, exec_context: ExecutionContext, number: int = Query()) -> str:
        blocked.block()
        return "done"

    @toto_delegate
    async def who(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str | None:
        return user_context.email

    @toto_delegate
    async def with_parameters(request: Request, exec_context: ExecutionContext, number: int = Query()) -> int:
        return number if exec_context.cid else -1

    @toto_delegate
    def plain(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str:
        return "plain"

    endpoints = [
        ("/block", block),
        ("/block-with-parameters", block_with_parameters),
        ("/who", who),
        ("/with-parameters", with_parameters),
        ("/plain", plain),
    ]
    service = make_service(
        *(APIEndpoint("GET", path, delegate) for path, delegate in endpoints),
        oidc_issuers=[OIDCIssuer(issuer=ISSUER, audience="us", jwks_uri=key_server.uri)],
    )
    bus = MemoryBus()
    consumer = Consumer(
        Through(bus, SUBSCRIPTION),
        router_of(blocking_handler(blocked)),
        max_concurrency=HANDLERS,
        logger=TotoLogger("blog"),
    )
    for _ in range(HANDLERS):
        await bus.put(TotoMessage(type="postCreated"), SUBSCRIPTION)
    consumer.start()
    async with service.client(token()) as client:
        paths = ["/block", "/block-with-parameters?number=1"] * (DELEGATES // 2)
        requests = [asyncio.create_task(client.get(path)) for path in paths]
        try:
            await blocked.until_running(HANDLERS + DELEGATES)
            yield service
            assert blocked.running == HANDLERS + DELEGATES
        finally:
            blocked.release()
            answers = await asyncio.gather(*requests)
            await consumer.stop(DEADLINE)
    assert {answer.status_code for answer in answers} == {200}


async def ask(service: Any, path: str, bearer: str) -> Any:
    async with asyncio.timeout(DEADLINE), service.client(bearer) as client:
        return await client.get(path)


async def test_as_many_def_handlers_run_at_a_time_as_messages_are_handled(blocked: Blocked) -> None:
    bus = MemoryBus()
    router = router_of(blocking_handler(blocked))
    consumer = Consumer(Through(bus, SUBSCRIPTION), router, max_concurrency=HANDLERS, logger=TotoLogger("blog"))
    for _ in range(HANDLERS + 4):
        await bus.put(TotoMessage(type="postCreated"), SUBSCRIPTION)
    consumer.start()
    try:
        await blocked.until_running(HANDLERS)
        blocked.release()
        await bus.until(lambda: [what for what, _ in bus.log].count("ack") == HANDLERS + 4)
    finally:
        await consumer.stop(DEADLINE)
    assert blocked.most == HANDLERS


async def test_caller_with_a_token_of_an_issuer_is_answered_meanwhile(blocked: Blocked, key_server: KeyServer) -> None:
    async with busy_service(blocked, key_server) as service:
        claims = {"user": None, "iss": ISSUER, "aud": "us", "email": "me@x.example", "email_verified": True}
        bearer = token(key_server.keys["one"], "RS256", {"kid": "one"}, iat=int(time.time()), **claims)
        answer = await ask(service, "/who", bearer)
        assert (answer.status_code, answer.json()) == (200, "me@x.example")


async def test_delegates_of_all_kinds_are_answered_meanwhile(blocked: Blocked, key_server: KeyServer) -> None:
    async with busy_service(blocked, key_server) as service:
        assert (await ask(service, "/with-parameters?number=7", token())).json() == 7
        assert (await ask(service, "/plain", token())).json() == "plain"


async def test_name_is_looked_up_and_our_own_work_is_done_meanwhile(blocked: Blocked, key_server: KeyServer) -> None:
    async with busy_service(blocked, key_server), asyncio.timeout(DEADLINE):
        await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert await asyncio.to_thread(int, "1") == 1
        assert await run_in_thread(int, "2") == 2
        assert await run_transfer(int, "3") == 3


async def test_number_of_def_delegates_at_a_time_can_be_set(blocked: Blocked) -> None:
    @toto_delegate
    def block(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> str:
        blocked.block()
        return "done"

    service = make_service(APIEndpoint("GET", "/block", block), max_threads=3)
    async with service.client(token()) as client:
        requests = [asyncio.create_task(client.get("/block")) for _ in range(9)]
        await blocked.until_running(3)
        blocked.release()
        assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert blocked.most == 3
    assert blocked.begun == 9


async def test_number_of_def_handlers_at_a_time_can_be_set(blocked: Blocked) -> None:
    router = router_of(blocking_handler(blocked), max_threads=3)
    body = b'{"timestamp":"","cid":"c-1","id":"1","type":"postCreated","msg":"","data":{}}'
    tasks = [asyncio.create_task(router.handle(Received(body, f"m-{n}", 1, SUBSCRIPTION))) for n in range(9)]
    await blocked.until_running(3)
    blocked.release()
    await asyncio.gather(*tasks)
    assert (blocked.most, blocked.begun) == (3, 9)


@pytest.mark.parametrize("number", [0, 257, "many"])
def test_number_of_threads_out_of_range_is_refused(number: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_threads"):
        APIConfiguration(max_threads=number)
    with pytest.raises(ConfigurationError, match="max_threads"):
        MessageBusConfig(max_threads=number)


async def test_def_generator_runs_in_the_delegates_threads_and_is_closed_when_its_reader_leaves() -> None:
    names: list[str] = []
    closed = threading.Event()

    @toto_delegate
    def count(request: Request, user_context: UserContext) -> Iterator[int]:
        try:
            for number in range(3):
                names.append(threading.current_thread().name)
                yield number
        finally:
            closed.set()

    stream = count(request=None, user_context=UserContext("me@x.example"))
    assert await anext(stream) == 0
    await stream.aclose()
    assert await run_in_thread(closed.wait, DEADLINE)
    assert [name.rpartition(" ")[0] for name in names] == ["totoms delegate"]


async def test_function_whose_caller_left_before_it_began_never_runs(blocked: Blocked) -> None:
    workers, ran = Workers(1, "of this test"), threading.Event()
    first = asyncio.create_task(workers.run(blocked.block))
    await blocked.until_running(1)
    late = asyncio.create_task(workers.run(ran.set))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.wait({late})
    blocked.release()
    await first
    await workers.run(int)  # whatever stood before it in the line was taken
    assert not ran.is_set()
    workers.close()


async def test_context_variables_travel_into_the_threads() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")
    workers = Workers(1, "of this test")
    assert await workers.run(variable.get) == "seen"
    assert await run_transfer(variable.get) == "seen"
    workers.close()


async def test_stop_iteration_reaches_the_caller_as_an_error() -> None:
    workers = Workers(1, "of this test")
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await workers.run(next, iter(()))
    workers.close()


async def test_closed_pool_ends_its_threads_and_starts_new_ones_when_asked() -> None:
    workers = Workers(2, "of this test")
    thread = await workers.run(threading.current_thread)
    workers.close()
    await run_in_thread(thread.join, DEADLINE)
    assert not thread.is_alive()
    assert await workers.run(int, "4") == 4
    workers.close()
