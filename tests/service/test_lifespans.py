"""What the user opens with the app is open before the first message is handled, and closed after the last one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request

from totoms import (
    APIConfiguration,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    TotoEnvironment,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)
from totoms.errors import ConfigurationError
from totoms.http.lifespan import Lifespan, initialised_by_lifespan
from totoms.local.configuration import LocalConfiguration
from totoms.testing import TestMicroservice

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*on_event is deprecated")
HAPPENED: list[str] = []
HANDLING = asyncio.Event()
GO_ON = asyncio.Event()


@pytest.fixture(autouse=True)
def _anew() -> None:
    global HANDLING, GO_ON
    HAPPENED.clear()
    HANDLING, GO_ON = asyncio.Event(), asyncio.Event()


class Slow(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "slow"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        HAPPENED.append("handling")
        HANDLING.set()
        await GO_ON.wait()
        HAPPENED.append("handled")
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


def configuration(root: Path) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="lively",
        environment=TotoEnvironment("local", LocalConfiguration(root=root)),
        api_configuration=APIConfiguration(public_routes=["GET /state"]),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="lively", secret="lively-topic")],
            message_handlers=[MessageBusHandlerConfig(handler_class=Slow)],
        ),
    )


# --- how users put their own on ---


def by_events(app: FastAPI) -> None:
    app.on_event("startup")(lambda: HAPPENED.append("opened"))

    @app.on_event("shutdown")
    async def close() -> None:
        HAPPENED.append("closed")


@contextlib.asynccontextmanager
async def users_lifespan(_app: Any) -> AsyncIterator[dict[str, str]]:
    HAPPENED.append("opened")
    try:
        yield {"pool": "a pool"}
    finally:
        HAPPENED.append("closed")


def by_wrapping(app: FastAPI) -> None:
    ours = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def around(app: Any) -> AsyncIterator[dict[str, str]]:
        async with users_lifespan(app) as state, ours(app):
            yield dict(state)

    app.router.lifespan_context = around


def by_replacing(app: FastAPI) -> None:
    app.router.lifespan_context = users_lifespan


def by_router(app: FastAPI) -> None:
    app.include_router(APIRouter(lifespan=users_lifespan))


WAYS = [by_events, by_wrapping, by_replacing, by_router]


# --- how services run ---


@contextlib.asynccontextmanager
async def started(service: TotoMicroservice) -> AsyncIterator[None]:
    serving = asyncio.create_task(service.start(port=0))
    while not (service._serving and service._serving.listening) and not serving.done():
        await asyncio.sleep(0)
    yield
    await service.stop()
    await serving


@contextlib.asynccontextmanager
async def under_another_server(service: TotoMicroservice) -> AsyncIterator[None]:
    server = Lifespan(service.app)
    await server.start()
    yield
    await server.stop()


@contextlib.asynccontextmanager
async def entered_by_hand(service: TotoMicroservice) -> AsyncIterator[None]:
    async with service.app.router.lifespan_context(service.app):
        yield


RUNS = [started, under_another_server, entered_by_hand]


@pytest.mark.parametrize("put_on", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("running", RUNS, ids=lambda run: run.__name__)
async def test_users_own_is_open_from_before_the_first_message_until_after_the_last(
    put_on: Any, running: Any, tmp_path: Path
) -> None:
    if running is entered_by_hand and put_on in (by_replacing, by_router):
        pytest.skip("ours is then not inside: an app that is mounted runs its lifespan as it finds it")
    service = await TotoMicroservice.create(configuration(tmp_path))
    put_on(service.app)
    # A message waits before the service starts, and is handled as soon as it pulls.
    async with under_another_server(await TotoMicroservice.create(configuration(tmp_path))):
        pass  # which has subscribed
    other = await TotoMicroservice.create(configuration(tmp_path))
    await other.message_bus.publish_message(MessageDestination(topic="lively"), TotoMessage(type="slow"))
    await other.stop()

    async def run() -> None:
        async with running(service):
            await HANDLING.wait()

    async with asyncio.timeout(60):
        task = asyncio.create_task(run())
        await HANDLING.wait()
        while service.state != "draining":
            await asyncio.sleep(0)
        assert "closed" not in HAPPENED
        GO_ON.set()
        await task
    assert HAPPENED == ["opened", "handling", "handled", "closed"]
    assert service.state == "stopped"


@pytest.mark.parametrize("put_on", WAYS, ids=lambda way: way.__name__)
async def test_users_own_runs_in_test_microservice(
    put_on: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = TotoMicroservice.create

    async def create(configuration: TotoMicroserviceConfiguration) -> TotoMicroservice:
        service = await made(configuration)
        put_on(service.app)
        return service

    monkeypatch.setattr(TotoMicroservice, "create", create)
    async with TestMicroservice(configuration(tmp_path)):
        assert HAPPENED == ["opened"]
    assert HAPPENED == ["opened", "closed"]


async def test_state_of_a_lifespan_reaches_requests(tmp_path: Path) -> None:
    service = await TotoMicroservice.create(configuration(tmp_path))
    by_wrapping(service.app)

    @service.app.get("/state")
    async def state(request: Request) -> Any:
        return request.state.pool

    serving = asyncio.create_task(service.start(port=0))
    async with asyncio.timeout(60):
        while not (service._serving and service._serving._server and service._serving._server.started):
            assert not serving.done()
            await asyncio.sleep(0)
        port = service._serving._server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/state")).json() == "a pool"
        await service.stop()
        await serving


@pytest.mark.parametrize("put_on", [by_events, by_router], ids=lambda way: way.__name__)
async def test_users_start_that_fails_ends_the_start_with_its_error(put_on: Any, tmp_path: Path) -> None:
    service = await TotoMicroservice.create(configuration(tmp_path))
    put_on(service.app)

    @contextlib.asynccontextmanager
    async def broken(_app: Any) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    service.app.include_router(APIRouter(lifespan=broken))
    with pytest.raises(LookupError, match="no database"):
        await service.start(port=0)
    assert HAPPENED == ["opened", "closed"]
    assert service.state == "stopped"


@pytest.mark.parametrize(
    ("error", "shown"), [(ConfigurationError("no topic"), "no topic"), (ValueError("broken"), "Traceback")]
)
async def test_app_that_cannot_be_created_fails_the_servers_start(error: Exception, shown: str) -> None:
    async def initialise() -> Any:
        raise error

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await initialised_by_lifespan(initialise)({"type": "lifespan"}, receive, send)
    (failed,) = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith(shown)
    assert str(error) in failed["message"]
