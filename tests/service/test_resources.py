"""Declared resources: what is missing, denied or away at start, and buckets that are not declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import pytest

from totoms import (
    AccessDenied,
    Bucket,
    ConfigurationError,
    ExecutionContext,
    MessageBusConfig,
    MessageBusTopicConfig,
    NotFound,
    Resources,
    TotoControllerConfig,
    TotoMicroserviceConfiguration,
    Unavailable,
    loading,
)
from totoms.local.storage.storage import LocalCloudStorage
from totoms.testing import TestMicroservice
from totoms.testing.service.backend import TestBackendSecretsManager

LOADED: list[str] = []


class Loads(TotoControllerConfig):
    async def load(self) -> Self:
        LOADED.append("load")
        await super().load()
        return self


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    LOADED.clear()
    monkeypatch.setattr(loading, "_PAUSE", 0.0)


def declared(**resources: Any) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(service_name="tested", custom_config=Loads, resources=Resources(**resources))


def fail_list(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> None:
    """Have the listings of buckets fail with each of `errors` in turn, then with the last one."""
    left = list(errors)

    def failing(self: LocalCloudStorage, prefix: str, delimiter: str) -> Iterator[str]:
        error = left.pop(0) if len(left) > 1 else left[0]
        if error is not None:
            raise error
        yield from ()

    monkeypatch.setattr(LocalCloudStorage, "_list", failing)


async def test_what_exists_is_found() -> None:
    configuration = declared(buckets=[Bucket("blog-files")], secrets=["database-url"])
    async with TestMicroservice(configuration, secrets={"database-url": "x"}):
        assert LOADED == ["load"]


async def test_all_that_is_missing_is_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_list(monkeypatch, NotFound("There is no bucket 'blog-files'."))
    with pytest.raises(ConfigurationError) as caught:
        async with TestMicroservice(declared(buckets=[Bucket("blog-files")], secrets=["one", "two"])):
            pass
    assert caught.value.message == (
        "tested cannot start: "
        "No secret 'one': give it with TestMicroservice(..., secrets={...}). "
        "No secret 'two': give it with TestMicroservice(..., secrets={...}). "
        "There is no bucket 'blog-files'."
    )
    assert LOADED == []


async def test_secret_of_a_topic_that_is_missing_is_in_the_message_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(self: object, secret: str, logical_name: str) -> str:
        raise NotFound(f"No secret {secret!r}.")

    monkeypatch.setattr(TestBackendSecretsManager, "topic_identifier_async", missing)
    bus = MessageBusConfig(topics=[MessageBusTopicConfig(logical_name="posts", secret="posts-topic")])
    configuration = declared(secrets=["one"]).model_copy(update={"message_bus_configuration": bus})
    with pytest.raises(ConfigurationError, match=r"No secret 'one'.*No secret 'posts-topic'"):
        async with TestMicroservice(configuration):
            pass


async def test_what_is_denied_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    fail_list(monkeypatch, AccessDenied("Access to the bucket 'blog-files' was denied."))
    async with TestMicroservice(declared(buckets=[Bucket("blog-files")])):
        assert LOADED == ["load"]
    assert "Cannot check whether it exists: Access to the bucket 'blog-files' was denied." in caplog.messages


async def test_store_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_list(monkeypatch, Unavailable("away"), Unavailable("away"), None)
    async with TestMicroservice(declared(buckets=[Bucket("blog-files")])):
        assert LOADED == ["load"]


async def test_store_that_stays_away_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "START_DEADLINE", 0.01)
    fail_list(monkeypatch, Unavailable("The store of 'blog-files' is away."))
    with pytest.raises(ConfigurationError, match=r"^tested cannot start: The store of 'blog-files' is away\.$"):
        async with TestMicroservice(declared(buckets=[Bucket("blog-files")])):
            pass


def context_of(service: TestMicroservice) -> ExecutionContext:
    running = service.microservice
    return ExecutionContext(running.logger, "cid", running.config, running.message_bus, running.environment)


async def test_undeclared_bucket_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    async with TestMicroservice(declared(buckets=[Bucket("blog-files")])) as service:
        context = context_of(service)
        context.get_storage("blog-files")
        assert not caplog.messages
        for _ in range(2):
            context.get_storage("other-files")
        assert caplog.messages == ["The bucket 'other-files' is not declared: add Bucket('other-files') to Resources."]


async def test_without_a_declaration_every_bucket_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async with TestMicroservice(TotoMicroserviceConfiguration(service_name="tested")) as service:
        context_of(service).get_storage("other-files")
    assert not [text for text in caplog.messages if "declared" in text]
