"""The test client of service developers: what it shows is what the service does, and nothing else is there."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from totoms import (
    APIConfiguration,
    APIEndpoint,
    CloudStorage,
    ConfigurationError,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    NonRetryableError,
    NotFound,
    ProcessingResponse,
    ProcessingStatus,
    Requires,
    RetryPolicy,
    SecretsManager,
    TotoControllerConfig,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.environment import scope_environment
from totoms.messages.outcome import Action
from totoms.testing import TestMicroservice
from totoms.testing.service.backend import TestBackendMessageBus

POSTS = MessageDestination(topic="posts")


class Config(TotoControllerConfig):
    async def load(self) -> Config:
        await super().load()
        self.greeting = await self.secrets_manager.get_secret_async("greeting")
        return self


@toto_delegate
async def publish(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    body = await request.json()
    message = TotoMessage(type=body.pop("type", "post"), data=body)
    options = {name: body[name] for name in ("delay", "ordering_key") if name in body}
    await exec_context.message_bus.publish_message(POSTS, message, **options)
    return {"user": user_context.email, "greeting": exec_context.config.greeting}


@toto_delegate
async def secret(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    return {"secret": await SecretsManager().get_secret_async(request.query_params["name"])}


class Handler(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "post"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        data = message.data
        assert message.delivery is not None
        if data.get("fails", 0) >= message.delivery.attempt:
            raise RuntimeError("it fails")
        if data.get("never"):
            raise NonRetryableError("never")
        if data.get("status"):
            return ProcessingResponse(ProcessingStatus(data["status"]), error="as told")
        if data.get("again"):
            await self.message_bus.publish_message(POSTS, TotoMessage(type="post", data={"title": data["again"]}))
        name = f"{data.get('title', 'untitled')}.txt"
        await CloudStorage("posts").upload_bytes_async(self.config.greeting.encode(), name)
        return ProcessingResponse(ProcessingStatus.SUCCESS)


class Threaded(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "plain"

    def process_message(self, message: TotoMessage) -> Any:
        CloudStorage("posts").upload_bytes(b"plain", "plain.txt")
        return ProcessingResponse(ProcessingStatus.IGNORED)


def declare(**messaging: Any) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="tested",
        base_path="/posts",
        custom_config=Config,
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="POST", path="", delegate=publish),
                APIEndpoint(method="GET", path="/secret", delegate=secret),
            ]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")],
            message_handlers=[
                MessageBusHandlerConfig(handler_class=Handler),
                MessageBusHandlerConfig(handler_class=Threaded),
            ],
            **messaging,
        ),
    )


def start(greeting: str = "hello", **messaging: Any) -> TestMicroservice:
    return TestMicroservice(declare(**messaging), secrets={"greeting": greeting})


async def files(service: TestMicroservice) -> list[str]:
    return await service.files("posts").list_files_async("")


async def test_default_client_is_a_user_and_others_are_easy_to_be() -> None:
    async with start() as service:
        answer = await service.client.post("/posts", json={})
        assert answer.json() == {"user": "user@example.com", "greeting": "hello"}
        assert (await service.client_of("ann@example.com").post("/posts", json={})).json()["user"] == "ann@example.com"
        assert (await service.client_of(None).post("/posts", json={})).status_code == 401


async def test_client_has_a_token_with_the_claims_that_a_test_needs() -> None:
    @toto_delegate
    async def granted(user_context: UserContext, exec_context: ExecutionContext) -> Any:
        return [user_context.email, sorted(user_context.roles), sorted(user_context.scopes)]

    declared = TotoMicroserviceConfiguration(
        service_name="tested",
        api_configuration=APIConfiguration(
            api_endpoints=[APIEndpoint(method="GET", path="/x", delegate=granted, requires=Requires(roles={"admin"}))]
        ),
    )
    async with TestMicroservice(declared) as service:
        admin = service.client_of("ann", claims={"roles": ["admin"], "scope": "a b"})
        assert (await admin.get("/x")).json() == ["ann", ["admin"], ["a", "b"]]
        assert (await service.client_of("ann").get("/x")).status_code == 403
        assert service.client_of("ann", claims={"scope": "a b", "roles": ["admin"]}) is admin
        with pytest.raises(ConfigurationError, match="'user' cannot be given"):
            service.client_of("ann", claims={"user": "admin"})


async def test_published_message_is_recorded_with_where_it_went() -> None:
    async with start() as service:
        headers = {"x-correlation-id": "c-1"}
        await service.client.post("/posts", json={"title": "é", "ordering_key": "k"}, headers=headers)
        (message,) = service.published
        assert (message.topic, message.queue, message.type, message.cid) == ("posts", None, "post", "c-1")
        assert (message.data["title"], message.ordering_key, message.delay) == ("é", "k", 0.0)
        assert message.attributes["messageId"] == message.message_id
        assert message.attributes["messageType"] == "post"


async def test_published_message_reaches_the_services_own_handler() -> None:
    async with start() as service:
        await service.client.post("/posts", json={"title": "one", "again": "two"})
        await service.settled()
        assert await files(service) == ["one.txt", "two.txt"]
        assert {one.message.data["title"] for one in service.handled if one.message} == {"one", "two"}
        assert all(one.succeeded for one in service.handled)


async def test_settled_waits_for_the_handler_at_work() -> None:
    async with start() as service:
        for number in range(40):
            await service.client.post("/posts", json={"title": f"{number:02}"})
        await service.settled()
        assert await files(service) == [f"{number:02}.txt" for number in range(40)]


async def test_settled_gives_up_on_a_handler_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def hang(_self: Any, _message: TotoMessage) -> Any:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Handler, "process_message", hang)
    configuration = declare()
    configuration.shutdown_grace = 0.0
    async with TestMicroservice(configuration, secrets={"greeting": "hello"}) as service:
        await service.client.post("/posts", json={})
        await begun.wait()
        with pytest.raises(TimeoutError, match="still"):
            await service.settled(timeout=0.05)


async def test_delivered_message_is_judged_as_by_the_real_router() -> None:
    async with start(retry=RetryPolicy(max_attempts=3)) as service:

        async def deliver(attempt: int = 1, **data: Any) -> Any:
            return await service.deliver(TotoMessage(type="post", data=data), attempt=attempt)

        done = await deliver(title="done")
        assert done.succeeded
        assert done.response == ProcessingResponse(ProcessingStatus.SUCCESS)
        assert done.message.delivery.topic == "posts"
        assert await files(service) == ["done.txt"]

        raised = await deliver(fails=1)
        assert (raised.outcome.action, raised.response) == (Action.RETRY, None)
        assert str(raised.error) == "it fails"

        failed = await deliver(status="failed")
        assert (failed.outcome.action, failed.response.error) == (Action.RETRY, "as told")

        assert (await deliver(status="ignored")).outcome.ignored
        assert (await deliver(never=True)).outcome.reason.reason == "non_retryable"
        assert (await deliver(attempt=3, fails=3)).outcome.reason.reason == "attempts_exhausted"
        assert (await service.deliver(TotoMessage(type="of another"))).outcome.ignored
        poison = await service.deliver(b"not a message")
        assert (poison.message, poison.outcome.reason.reason) == (None, "undecodable")
        assert len(service.handled) == 8
        assert service.published == []


async def test_delivered_message_takes_the_wire_form_and_leaves_the_tests_context_alone() -> None:
    from totoms.context import current_cid

    async with start() as service:
        message = TotoMessage(type="post", cid="c-7", data={"pair": (1, 2), "title": "wire"})
        result = await service.deliver(message, attributes={"traceparent": "x", "mine": "yes"})
        assert result.message is not None
        assert result.message.data["pair"] == [1, 2]
        assert result.message.delivery is not None
        assert result.message.delivery.attributes["mine"] == "yes"
        assert current_cid.get() == ""


async def test_plain_handler_knows_its_own_service_in_its_thread() -> None:
    async with start() as service:
        assert (await service.deliver(TotoMessage(type="plain"))).outcome.ignored
        assert await files(service) == ["plain.txt"]


async def test_topic_that_the_service_does_not_have_is_reported_with_those_it_has() -> None:
    async with start() as service:
        with pytest.raises(NotFound, match="posts"):
            await service.deliver(TotoMessage(type="post"), topic="pots")


async def test_failed_message_comes_again_when_time_passes_and_not_before() -> None:
    async with start(retry=RetryPolicy(max_attempts=3, min_backoff=60.0, max_backoff=60.0)) as service:
        await service.client.post("/posts", json={"title": "late", "fails": 2})
        await service.settled()
        assert [one.outcome.action for one in service.handled] == [Action.RETRY]
        await service.advance(120.0)
        assert [one.outcome.action for one in service.handled] == [Action.RETRY, Action.RETRY, Action.ACK]
        assert await files(service) == ["late.txt"]


async def test_message_that_always_fails_ends_as_a_dead_letter() -> None:
    async with start(retry=RetryPolicy(max_attempts=2)) as service:
        await service.client.post("/posts", json={"fails": 9})
        await service.advance(3600.0)
        (letter,) = await service.microservice.message_bus.list_dead_letters("tested-posts")
        assert (letter.reason.reason, letter.reason.attempts) == ("attempts_exhausted", 2)
        assert [str(one.error) for one in service.handled] == ["it fails", "it fails"]


async def test_delayed_message_waits_for_its_time() -> None:
    async with start() as service:
        await service.client.post("/posts", json={"title": "later", "delay": 3600.0})
        await service.settled()
        await service.advance(3599.0)
        assert service.handled == []
        await service.advance(1.0)
        assert await files(service) == ["later.txt"]


async def test_time_does_not_pass_while_a_handler_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    original = Handler.process_message

    async def slow(self: Any, message: TotoMessage) -> Any:
        begun.set()
        await go.wait()
        return await original(self, message)

    monkeypatch.setattr(Handler, "process_message", slow)
    async with start() as service:
        await service.client.post("/posts", json={"title": "slow"})
        await begun.wait()
        before = service._backend.now
        advancing = asyncio.create_task(service.advance(24 * 3600.0))
        bus = service.microservice.message_bus
        assert isinstance(bus, TestBackendMessageBus)
        for _ in range(3):  # transactions, each behind those of advance()
            assert await bus.busy() == 1
        assert service._backend.now == before
        go.set()
        await advancing
        assert service._backend.now == before + 24 * 3600.0
        assert len(service.handled) == 1


async def test_secret_can_be_changed_while_the_service_runs() -> None:
    async with start() as service:
        assert (await service.client.get("/posts/secret?name=api-key")).status_code == 500
        service.secrets["api-key"] = "one"
        assert (await service.client.get("/posts/secret?name=api-key")).json() == {"secret": "one"}
        service.secrets["api-key"] = "two"
        assert (await service.client.get("/posts/secret?name=api-key")).json() == {"secret": "two"}


async def test_secret_that_is_missing_at_start_is_named_and_nothing_is_left() -> None:
    service = TestMicroservice(declare())
    with pytest.raises(ConfigurationError, match=r"'greeting'.*secrets="):
        await service.__aenter__()
    assert not service.environment.hyperscaler_configuration.root.exists()


async def test_nothing_of_the_machine_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("API_KEY=of the developer\nGREETING=of the developer\n")
    monkeypatch.chdir(tmp_path)
    foreign = {"HYPERSCALER": "aws", "ENVIRONMENT": "prod", "GREETING": "shell", "JWT_SIGNING_KEY": "short"}
    for name, value in {**foreign, "TOTOMS_LOCAL_ROOT": str(tmp_path / "root"), "PORT": "x"}.items():
        monkeypatch.setenv(name, value)
    async with start("of the test") as service:
        assert (await service.client.post("/posts", json={"title": "a"})).json()["greeting"] == "of the test"
        with pytest.raises(NotFound):
            SecretsManager(service.environment).get_secret("api-key")
        await service.settled()
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


async def test_nothing_is_left_behind_and_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def refuse(*_: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    before = os.listdir("/proc/self/fd")
    async with start() as service:
        await service.client.post("/posts", json={"title": "a"})
        await service.settled()
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= len(before)


async def test_several_services_at_once_do_not_mix() -> None:
    async with start("one") as one, start("two") as two:
        names = [f"{number:02}" for number in range(10)]
        await asyncio.gather(
            *(service.client.post("/posts", json={"title": name}) for name in names for service in (one, two))
        )
        await asyncio.gather(one.settled(), two.settled())
        for service, greeting in ((one, "one"), (two, "two")):
            assert await files(service) == [f"{name}.txt" for name in names]
            assert await service.files("posts").get_file_content_async("00.txt") == greeting
            assert len(service.published) == len(service.handled) == 10
        await one.advance(1000.0)
        assert one.environment != two.environment


async def test_bare_secrets_manager_in_a_delegate_is_its_own_services() -> None:
    async with start() as one, start() as two:
        one.secrets["whose"], two.secrets["whose"] = "one", "two"
        answers = await asyncio.gather(*(service.client.get("/posts/secret?name=whose") for service in (one, two) * 5))
        assert [answer.json()["secret"] for answer in answers] == ["one", "two"] * 5


async def test_instance_in_a_delegate_or_handler_is_its_own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def republish(_self: Any, message: TotoMessage) -> ProcessingResponse:
        if message.data["n"] == 1:
            bus = TotoMicroservice.get_instance().message_bus
            await bus.publish_message(POSTS, TotoMessage(type="post", data={"n": 2}))
        return ProcessingResponse(ProcessingStatus.SUCCESS)

    monkeypatch.setattr(Handler, "process_message", republish)
    async with start() as one, start() as two, start() as idle:
        await asyncio.gather(*(service.client.post("/posts", json={"n": 1}) for service in (one, two)))
        for service in (one, two, idle):
            await service.settled()
        assert [len(service.published) for service in (one, two, idle)] == [2, 2, 0]
        await one.deliver(TotoMessage(type="post", data={"n": 1}))
        assert [len(service.published) for service in (one, two)] == [3, 2]


async def test_process_default_stays_as_it_was() -> None:
    async with start() as service:
        with pytest.raises(ConfigurationError):
            TotoMicroservice.get_instance()
        with scope_environment(service.environment):
            assert TotoMicroservice.get_instance() is service.microservice
    with scope_environment(service.environment), pytest.raises(ConfigurationError):
        TotoMicroservice.get_instance()


async def test_service_declared_for_push_is_tested_all_the_same() -> None:
    async with start(delivery="push") as service:
        await service.client.post("/posts", json={"title": "pushed"})
        await service.settled()
        assert await files(service) == ["pushed.txt"]


async def test_service_without_a_message_bus_is_reported() -> None:
    configuration = TotoMicroserviceConfiguration(service_name="small")
    async with TestMicroservice(configuration) as service:
        assert (await service.client.get("/health")).json()["apiName"] == "small"
        await service.settled()
        await service.advance(10.0)
        with pytest.raises(ConfigurationError, match="no message bus"):
            await service.deliver(TotoMessage(type="post"))


async def test_use_before_the_start_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="async with"):
        _ = start().client


async def test_errors_of_delegates_are_answers_as_in_production() -> None:
    async with start() as service:
        await service.microservice.message_bus.close()
        answer = await service.client.post("/posts", json={})
        assert answer.status_code == 500
        assert answer.json().keys() == {"code", "message", "cid", "detail"}


def test_pytest_does_not_collect_it() -> None:
    assert TestMicroservice.__test__ is False
