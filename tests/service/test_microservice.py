"""TotoMicroservice in this process: one default, several more, start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import Request

from support.services.blog import configuration
from totoms import (
    APIConfiguration,
    APIEndpoint,
    Closed,
    CloudStorage,
    ConfigurationError,
    ExecutionContext,
    MessageDestination,
    SecretsManager,
    TotoEnvironment,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.auth.tokens import make_token
from totoms.local.configuration import LocalConfiguration
from totoms.local.keys import signing_key


@pytest.fixture(autouse=True)
async def _no_default_is_left() -> AsyncIterator[None]:
    yield
    if TotoMicroservice._default is not None:
        await TotoMicroservice._default.stop()


async def test_concurrent_init_gives_one_instance() -> None:
    declared = configuration()
    first, *others = await asyncio.gather(*(TotoMicroservice.init(declared) for _ in range(20)))
    assert all(other is first for other in others)
    assert TotoMicroservice.get_instance() is first


async def test_cancelled_caller_does_not_cancel_the_instance_for_the_others() -> None:
    declared = configuration()
    impatient = asyncio.create_task(TotoMicroservice.init(declared))
    patient = asyncio.create_task(TotoMicroservice.init(declared))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is TotoMicroservice.get_instance()


async def test_failed_init_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SIGNING_KEY", "short")
    with pytest.raises(ConfigurationError):
        await TotoMicroservice.init(configuration())
    with pytest.raises(ConfigurationError, match="init"):
        TotoMicroservice.get_instance()
    monkeypatch.delenv("JWT_SIGNING_KEY")
    assert await TotoMicroservice.init(configuration()) is TotoMicroservice.get_instance()


async def test_several_services_run_in_one_process_next_to_the_default() -> None:
    one = await TotoMicroservice.create(TotoMicroserviceConfiguration(service_name="one"))
    two = await TotoMicroservice.create(TotoMicroserviceConfiguration(service_name="two"))
    with pytest.raises(ConfigurationError):
        TotoMicroservice.get_instance()
    for service, name in ((one, "one"), (two, "two")):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://localhost") as http:
            assert (await http.get("/health")).json()["apiName"] == name
    await one.stop()
    await two.stop()


async def test_service_is_ready_only_between_start_and_stop() -> None:
    service = await TotoMicroservice.create(TotoMicroserviceConfiguration(service_name="one"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://localhost") as http:
        assert (await http.get("/ready")).status_code == 503
        async with service.app.router.lifespan_context(service.app):
            assert (await http.get("/ready")).status_code == 200
        assert (await http.get("/ready")).status_code == 503
        assert (await http.get("/health")).status_code == 200


async def test_stopped_service_publishes_no_more_and_a_new_one_can_be_made() -> None:
    declared = configuration()
    first = await TotoMicroservice.init(declared)
    await first.stop()
    await first.stop()
    assert first.message_bus is not None
    with pytest.raises(Closed):
        await first.message_bus.publish_message(MessageDestination(topic="posts"), TotoMessage(type="postCreated"))
    with pytest.raises(Closed):
        await first.start(port=0)
    second = await TotoMicroservice.init(declared)
    assert second is not first
    assert second.message_bus is not None
    await second.message_bus.publish_message(MessageDestination(topic="posts"), TotoMessage(type="postCreated"))


async def test_start_serves_until_stop() -> None:
    service = await TotoMicroservice.create(TotoMicroserviceConfiguration(service_name="one"))
    serving = asyncio.create_task(service.start(port=0))
    async with asyncio.timeout(120):
        while service.state == "starting":
            await asyncio.sleep(0)
        await service.stop()
        await serving
    assert service.state == "stopped"


async def test_services_in_one_process_have_their_own_environments(tmp_path: Path) -> None:
    @toto_delegate
    async def where(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> list[str]:
        environments = [SecretsManager().environment, CloudStorage("files").environment, exec_context.environment]
        return [str(environment.hyperscaler_configuration.root) for environment in environments]

    for name in ("one", "two"):
        service = await TotoMicroservice.create(
            TotoMicroserviceConfiguration(
                service_name=name,
                environment=TotoEnvironment("local", LocalConfiguration(root=tmp_path / name)),
                api_configuration=APIConfiguration([APIEndpoint("GET", "/where", where)]),
            )
        )
        token = make_token(signing_key(tmp_path / name), "me@example.com")
        headers = {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
            assert (await http.get("/where")).json() == [str(tmp_path / name)] * 3
        await service.stop()
