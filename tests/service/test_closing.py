"""`TotoControllerConfig.close`: called once in every process, after the drain, whatever ends the service."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

import pytest

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ConfigurationError,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    ProcessingResponse,
    ProcessingStatus,
    SecretsManager,
    TotoControllerConfig,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    loading,
    toto_delegate,
)
from totoms.http.lifespan import Lifespan
from totoms.testing import TestMicroservice
from totoms.testing.service.backend import TestBackendMessageBus

HAPPENED: list[str] = []


@pytest.fixture(autouse=True)
def _anew() -> None:
    HAPPENED.clear()


class Pooled(TotoControllerConfig):
    async def load(self) -> Self:
        await super().load()
        HAPPENED.append("load")
        return self

    async def close(self) -> None:
        assert SecretsManager().environment == self.environment
        HAPPENED.append("close")


class Slow(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "slow"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        HAPPENED.append("handling")
        await asyncio.sleep(0)
        HAPPENED.append("handled")
        return ProcessingResponse(status=ProcessingStatus.SUCCESS)


def declared(config: type[TotoControllerConfig] = Pooled, **more: Any) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(service_name="tested", custom_config=config, **more)


async def test_config_is_closed_after_the_last_message_in_a_test_microservice() -> None:
    bus = MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="jobs", secret="jobs-topic")],
        message_handlers=[MessageBusHandlerConfig(handler_class=Slow)],
    )
    async with TestMicroservice(declared(message_bus_configuration=bus)) as service:
        await service.microservice.message_bus.publish_message(
            MessageDestination(topic="jobs"), TotoMessage(type="slow", id="1")
        )
        await service.settled()
    assert HAPPENED == ["load", "handling", "handled", "close"]


async def test_config_can_publish_when_it_closes() -> None:
    class Farewell(Pooled):
        async def close(self) -> None:
            await TotoMicroservice.get_instance().message_bus.publish_message(
                MessageDestination(topic="jobs"), TotoMessage(type="bye", id="1")
            )

    bus = MessageBusConfig(topics=[MessageBusTopicConfig(logical_name="jobs", secret="jobs-topic")])
    async with TestMicroservice(declared(Farewell, message_bus_configuration=bus)) as service:
        pass
    assert [message.type for message in service.published] == ["bye"]


async def test_config_is_closed_once_under_start_and_stop() -> None:
    service = await TotoMicroservice.create(declared())
    serving = asyncio.create_task(service.start(port=0))
    async with asyncio.timeout(120):
        while service.state == "starting":
            await asyncio.sleep(0)
        await service.stop()
        await serving
    await service.stop()
    assert HAPPENED == ["load", "close"]


async def test_config_is_closed_once_under_another_server() -> None:
    lifespan = Lifespan(TotoMicroservice.asgi(declared()))
    await lifespan.start()
    assert HAPPENED == ["load"]
    await lifespan.stop()
    assert HAPPENED == ["load", "close"]


async def test_config_is_closed_with_an_app_that_mounts_the_services() -> None:
    service = await TotoMicroservice.create(declared())
    async with service.app.router.lifespan_context(service.app):
        assert HAPPENED == ["load"]
    assert HAPPENED == ["load", "close"]


async def test_config_is_closed_when_the_start_fails_after_load() -> None:
    class NoKey(Pooled):
        jwt_key = None  # type: ignore[assignment]

    @toto_delegate
    async def delegate(request: Any, user_context: UserContext, exec_context: ExecutionContext) -> None: ...

    api = APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/x", delegate=delegate)])
    with pytest.raises(ConfigurationError, match="no token verifier"):
        async with TestMicroservice(declared(NoKey, api_configuration=api)):
            pass
    assert HAPPENED == ["load", "close"]


async def test_bus_is_closed_when_the_start_fails_after_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    close = TestBackendMessageBus.close

    async def watched(self: TestBackendMessageBus) -> None:
        closed.append(self)
        await close(self)

    monkeypatch.setattr(TestBackendMessageBus, "close", watched)
    bus = MessageBusConfig(topics=[MessageBusTopicConfig(logical_name="jobs", secret="jobs-topic")])
    api = APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/x", delegate=never)])
    with pytest.raises(ConfigurationError, match="not decorated"):
        async with TestMicroservice(declared(api_configuration=api, message_bus_configuration=bus)):
            pass
    assert len(closed) == 1
    assert HAPPENED == ["load", "close"]


async def never() -> None: ...


async def test_config_is_not_closed_when_load_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Pooled):
        async def load(self) -> Self:
            await super().load()
            raise KeyError("of the load")

    with pytest.raises(KeyError):
        await TotoMicroservice.create(declared(Failing))
    assert HAPPENED == ["load"]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "tested cannot start: Failing.load() failed"
    assert "KeyError: 'of the load'" in (record.exc_text or "")
    assert "in load" in (record.exc_text or "")


async def test_close_that_is_a_def_runs_in_a_thread() -> None:
    class Blocking(Pooled):
        def close(self) -> None:  # type: ignore[override]
            HAPPENED.append(threading.current_thread().name)

    async with TestMicroservice(declared(Blocking)):
        pass
    assert HAPPENED[-1].startswith("totoms")


async def test_close_of_an_old_config_that_wants_arguments_is_not_called(caplog: pytest.LogCaptureFixture) -> None:
    class Old(Pooled):
        async def close(self, reason: str) -> None:  # type: ignore[override]
            HAPPENED.append("close")

    async with TestMicroservice(declared(Old)):
        pass
    assert HAPPENED == ["load"]
    assert "Old.close takes arguments, so it is not called when the service stops." in caplog.messages


async def test_close_that_fails_is_logged_and_the_service_stops(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Pooled):
        async def close(self) -> None:
            raise ValueError("of the close")

    async with TestMicroservice(declared(Failing)) as service:
        pass
    assert service.microservice.state == "stopped"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "Failing.close() failed"
    assert "ValueError: of the close" in (record.exc_text or "")


async def test_close_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Pooled):
        async def close(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(loading, "CLOSE_DEADLINE", 0.01)
    async with TestMicroservice(declared(Hanging)) as service:
        pass
    assert service.microservice.state == "stopped"
    assert "Hanging.close() failed" in caplog.messages


async def test_forgotten_super_load_is_one_line_and_part_of_the_error(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(TotoControllerConfig):
        async def load(self) -> Self:
            return self

    @toto_delegate
    async def delegate(request: Any, user_context: UserContext, exec_context: ExecutionContext) -> None: ...

    hint = (
        "Forgetful.load() does not 'await super().load()', so the secrets 'jwt-signing-key' and "
        "'toto-expected-audience' were not read."
    )
    api = APIConfiguration(api_endpoints=[APIEndpoint(method="GET", path="/x", delegate=delegate)])
    with pytest.raises(ConfigurationError) as caught:
        await TotoMicroservice.create(declared(Forgetful, api_configuration=api))
    assert caught.value.message.startswith("There is no token verifier for GET /x")
    assert caught.value.message.endswith(hint)
    assert hint in caplog.messages


async def test_load_that_is_a_def_is_one_line() -> None:
    class Plain(TotoControllerConfig):
        def load(self) -> Any:
            return self

    with pytest.raises(ConfigurationError, match=r"^Plain.load must be declared with 'async def'\.$"):
        await TotoMicroservice.create(declared(Plain))
