"""What services of 1.5.0 do after importing: they override, set and read attributes, and log before the start."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from fastapi import Request

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ConfigurationError,
    DeadLetter,
    Delivery,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    NotFound,
    ProcessingResponse,
    ProcessingStatus,
    RetryPolicy,
    TotoControllerConfig,
    TotoEnvironment,
    TotoLogger,
    TotoMessage,
    TotoMessageHandler,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
)
from totoms.auth.tokens import make_token
from totoms.messages.dead_letters import DeadLetterReason
from totoms.testing import TestMicroservice

# --- the log, before and without a service ---


def run(source: str, *, stdout: Any = subprocess.PIPE) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source], stdout=stdout, stderr=subprocess.STDOUT, text=True, timeout=60, check=True
    )
    return done.stdout


def messages(output: str) -> list[str]:
    return [json.loads(line)["message"] if line.startswith("{") else line for line in output.splitlines()]


def test_logger_without_a_service_writes_at_info() -> None:
    output = run("from totoms import TotoLogger; TotoLogger.get_instance('batch').log('cid-1', 'begun')")
    (line,) = output.splitlines()
    record = json.loads(line)
    assert (record["message"], record["cid"], record["service"]) == ("begun", "cid-1", "batch")
    assert record["severity"] == "INFO"


def test_logger_before_init_writes_each_line_once() -> None:
    output = run(
        "import logging\n"
        "from totoms import TotoLogger\n"
        "from totoms.logging.setup import configure_logging\n"
        "logger = TotoLogger.get_instance()\n"
        "logger.log('c', 'before')\n"
        "configure_logging()\n"
        "TotoLogger.get_instance('blog').log('c', 'after')\n"
        "logging.getLogger('other').warning('of another')"
    )
    assert messages(output) == ["before", "after", "of another"]


def test_logging_that_the_service_sets_up_later_takes_over() -> None:
    output = run(
        "import logging, sys\n"
        "from totoms import TotoLogger\n"
        "from totoms.logging.setup import configure_logging\n"
        "logger = TotoLogger.get_instance()\n"
        "logger.log('c', 'before')\n"
        "logging.getLogger('totoms').handlers[0].flush()\n"
        "logging.basicConfig(stream=sys.stdout, format='own %(message)s', level=logging.INFO)\n"
        "logger.log('c', 'between')\n"
        "configure_logging()\n"
        "logger.log('c', 'after')\n"
        "logging.getLogger().setLevel(logging.WARNING)\n"
        "logger.log('c', 'never')"
    )
    assert messages(output) == ["before", "own between", "own after"]


def test_logging_that_was_set_up_before_is_left_alone() -> None:
    output = run(
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='own %(message)s')\n"
        "from totoms import TotoLogger\n"
        "TotoLogger('a').log('c', 'quiet')\n"
        "TotoLogger('a').log('c', 'loud', 'ERROR')"
    )
    assert messages(output) == ["own loud"]


# --- overriding the configuration ---


@toto_delegate
async def whoami(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> Any:
    config = exec_context.config
    return [user_context.email, config.jwt_expected_audience, config.mongo_host, config.mongo_user, config.mongo_pwd]


KEY = "a-key-that-the-service-has-from-elsewhere-0123456789"


class Overriding(TotoControllerConfig):
    """Each of these ended the start with a traceback."""

    @property
    def jwt_key(self) -> str | None:  # type: ignore[override]
        return KEY

    @property
    def jwt_expected_audience(self) -> str | None:  # type: ignore[override]
        return None

    @property
    def mongo_host(self) -> str | None:  # type: ignore[override]
        return f"{self._mongo_host}:27017"  # type: ignore[attr-defined]

    @property
    def mongo_user(self) -> str | None:  # type: ignore[override]
        return super().mongo_user

    mongo_pwd = "fixed"  # type: ignore[assignment]

    def get_mongo_secret_names(self) -> dict[str, str] | None:
        return {"user_secret_name": "the-user", "pwd_secret_name": "the-password"}


def service(config: type[TotoControllerConfig], **more: Any) -> TotoMicroserviceConfiguration:
    endpoints = [APIEndpoint("GET", "/whoami", whoami)]
    return TotoMicroserviceConfiguration(
        service_name="blog", custom_config=config, api_configuration=APIConfiguration(endpoints), **more
    )


SECRETS = {"mongo-host": "mongo.example", "the-user": "blogger", "the-password": "p"}


async def test_secrets_of_the_configuration_can_be_overridden_by_properties() -> None:
    async with TestMicroservice(service(Overriding), secrets=SECRETS) as tested:
        token = make_token(KEY, "me@example.com")
        answer = await tested.client_of(None).get("/whoami", headers={"authorization": f"Bearer {token}"})
        assert answer.json() == ["me@example.com", None, "mongo.example:27017", "blogger", "fixed"]


async def test_secrets_of_the_configuration_can_be_set_and_are_none_before() -> None:
    class Setting(TotoControllerConfig):
        def __init__(self, environment: TotoEnvironment) -> None:
            super().__init__(environment)
            assert self.jwt_key is self.mongo_host is None
            assert self._is_loaded is False

        async def load(self) -> Setting:
            await super().load()
            self.mongo_host, self.jwt_key = "set", KEY
            return self

    async with TestMicroservice(service(Setting)) as tested:
        assert (tested.microservice.config.mongo_host, tested.microservice.config.jwt_key) == ("set", KEY)
        assert (await tested.client.get("/whoami")).json()[2] == "set"


async def test_loaded_configuration_says_so_and_is_not_loaded_again() -> None:
    class Once(Overriding):
        async def load(self) -> Once:
            if self._is_loaded:
                return self
            await super().load()
            return self

    class Given(TotoControllerConfig):
        def __init__(self, environment: TotoEnvironment) -> None:
            super().__init__(environment)
            self._is_loaded, self._jwt_key = True, KEY

        def get_mongo_secret_names(self) -> dict[str, str] | None:
            return {"user_secret_name": "none-such", "pwd_secret_name": "none-such"}

    async with TestMicroservice(service(Once), secrets=SECRETS) as tested:
        config = tested.microservice.config
        assert config._is_loaded
        tested.secrets["mongo-host"] = "another"
        assert await config.load() is config
        assert config.mongo_host == "mongo.example:27017"
    async with TestMicroservice(service(Given)) as tested:
        assert tested.microservice.config.jwt_key == KEY


async def test_missing_mongo_secret_still_ends_the_start() -> None:
    with pytest.raises(ConfigurationError, match="mongo-host") as caught:
        async with TestMicroservice(service(Overriding)):
            pass
    assert isinstance(caught.value.__cause__, NotFound)


# --- looking inside ---


def made(kind: type[Any]) -> Any:
    return {
        UserContext: lambda: UserContext("me@example.com"),
        ExecutionContext: lambda: ExecutionContext(TotoLogger(), "c", None, None, None),  # type: ignore[arg-type]
        TotoMessage: lambda: TotoMessage(type="t"),
        ProcessingResponse: lambda: ProcessingResponse(ProcessingStatus.SUCCESS),
        Delivery: lambda: Delivery("m"),
        TotoLogger: lambda: TotoLogger("blog"),
    }[kind]()


@pytest.mark.parametrize("kind", [UserContext, ExecutionContext, TotoMessage, ProcessingResponse, Delivery, TotoLogger])
def test_what_a_service_is_given_has_a_dictionary_and_takes_attributes(kind: type[Any]) -> None:
    one = made(kind)
    one.db = "x"
    assert vars(one)["db"] == one.__dict__["db"] == "x"
    if dataclasses.is_dataclass(one):
        assert [field.name for field in dataclasses.fields(one)] == [name for name in vars(one) if name != "db"]


@pytest.mark.parametrize(
    "one",
    [
        MessageDestination(topic="t"),
        RetryPolicy(),
        DeadLetterReason("undecodable"),
        DeadLetter("1", "m", "s", b"", {}, DeadLetterReason("undecodable"), 0.0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_cannot_be_changed_has_a_dictionary_too(one: Any) -> None:
    assert [field.name for field in dataclasses.fields(one)] == list(vars(one))


# --- lists of a declaration ---


class Created(TotoMessageHandler):
    def get_handled_message_type(self) -> str:
        return "created"

    async def process_message(self, message: TotoMessage) -> ProcessingResponse:
        return ProcessingResponse(ProcessingStatus.SUCCESS)


async def test_what_is_appended_to_a_list_after_the_declaration_is_served() -> None:
    endpoints: list[APIEndpoint] = []
    topics: list[MessageBusTopicConfig] = []
    handlers: list[MessageBusHandlerConfig] = []
    declared = TotoMicroserviceConfiguration(
        service_name="blog",
        api_configuration=APIConfiguration(api_endpoints=endpoints),
        message_bus_configuration=MessageBusConfig(topics, handlers),
    )
    endpoints.append(APIEndpoint("GET", "/whoami", whoami))
    topics.append(MessageBusTopicConfig("posts", "posts-topic"))
    handlers.append(MessageBusHandlerConfig(Created))
    async with TestMicroservice(declared) as tested:
        assert (await tested.client.get("/whoami")).status_code == 200
        assert (await tested.deliver(TotoMessage(type="created"))).succeeded
        assert [one.message for one in tested.handled if one.message]


@pytest.mark.parametrize(
    "appended", [APIEndpoint("GET", "/whoami", whoami), {"method": "GET"}, "GET /x"], ids=["twice", "a dict", "a text"]
)
async def test_what_is_appended_is_checked_at_the_start(appended: Any) -> None:
    endpoints: list[Any] = [APIEndpoint("GET", "/whoami", whoami)]
    declared = TotoMicroserviceConfiguration(service_name="blog", api_configuration=APIConfiguration(endpoints))
    endpoints.append(appended)
    with pytest.raises(ConfigurationError, match=r"APIConfiguration\.api_endpoints|APIEndpoint\.path"):
        async with TestMicroservice(declared):
            pass


def test_list_whose_items_are_converted_is_not_changed() -> None:
    given: list[Any] = [{"method": "get", "path": "/x", "delegate": whoami}]
    api = APIConfiguration(given)
    assert given[0] == {"method": "get", "path": "/x", "delegate": whoami}
    assert api.api_endpoints[0].method == "GET"


# --- the public address ---


@pytest.mark.parametrize(
    ("address", "base_path", "pushed"),
    [
        ("https://blog.example", "/blog", "https://blog.example/blog/events"),
        ("https://blog.example/", "/blog", "https://blog.example/blog/events"),
        ("https://blog.example/blog", "/blog", "https://blog.example/blog/events"),
        ("https://blog.example/blog/", "/blog", "https://blog.example/blog/events"),
        ("https://gate.example/stage/blog", "/blog", "https://gate.example/stage/blog/events"),
        ("https://gate.example/stage", "/blog", "https://gate.example/stage/blog/events"),
        ("https://gate.example/myblog", "/blog", "https://gate.example/myblog/blog/events"),
        ("https://blog.example/blog", "", "https://blog.example/blog/events"),
        ("https://blog", "/blog", "https://blog/blog/events"),
    ],
)
async def test_base_path_in_the_public_address_is_not_repeated(
    address: str, base_path: str, pushed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SERVICE_BASE_URL", address)
    bus = MessageBusConfig([MessageBusTopicConfig("posts", "posts-topic")], [MessageBusHandlerConfig(Created)])
    declared = service(TotoControllerConfig, base_path=base_path, message_bus_configuration=bus)
    caplog.set_level("INFO", "totoms")
    async with TestMicroservice(declared) as tested:
        messaging = tested.microservice._messaging
        assert messaging is not None
        assert {one.push_url for one in messaging._subscriptions} == {pushed}
    has_it = address.rstrip("/").endswith(base_path) and base_path and not address.endswith(("//blog", "/myblog"))
    assert ("SERVICE_BASE_URL includes the base path" in caplog.text) == bool(has_it)
