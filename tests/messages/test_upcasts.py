"""Versions of events: upcasts, versions newer than the class, and unsigned pushed attributes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.messages.by_name import Through
from support.messages.kit import DEADLINE, SUBSCRIPTION, MemoryBus, make_router
from totoms import (
    ConfigurationError,
    MessageBusHandlerConfig,
    NonRetryableError,
    RetryPolicy,
    TotoEvent,
    TotoLogger,
    TotoMessage,
    toto_handler,
    upcast,
)
from totoms.messages.consumer import Consumer
from totoms.messages.function_handler import function_handler_of
from totoms.messages.message import encode_message
from totoms.messages.outcome import Action, Outcome
from totoms.messages.receiver import Received
from totoms.messages.router import MessageRouter

SECRET = "canary-4711"


class PostCreated(TotoEvent, type="postCreated", version=3):
    slug: str
    title: str
    words: int


@upcast(PostCreated, from_version=1)
def _with_title(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "title": data["slug"].title()}


@upcast(PostCreated, from_version=2)
def _with_words(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "words": len(data["title"].split())}


def router(handler: Callable[..., Any]) -> MessageRouter:
    function = function_handler_of(handler)
    assert function is not None
    return make_router(function.bind(lambda: None))  # type: ignore[arg-type, return-value]


class Seen:
    """Handles `PostCreated`, and keeps the events."""

    def __init__(self) -> None:
        self.events: list[PostCreated] = []

        @toto_handler
        async def keep(message: TotoMessage[PostCreated]) -> None:
            self.events.append(message.data)

        self.router = router(keep)

    async def get(self, data: Any, version: str | None = None, *, attempt: int = 1, vouched: bool = True) -> Outcome:
        return await self.router.handle(delivery(data, version, attempt=attempt, vouched=vouched))


def delivery(data: Any, version: str | None = None, *, attempt: int = 1, vouched: bool = True) -> Received:
    attributes = {} if version is None else {"schemaVersion": version}
    body = encode_message(TotoMessage(type="postCreated", data=data))
    return Received(body, "m-1", attempt, SUBSCRIPTION, attributes, attributes_vouched=vouched)


@pytest.fixture
def seen() -> Seen:
    return Seen()


V1 = {"slug": "hello world"}
V2 = {"slug": "hello world", "title": "Hello there world"}
V3 = {"slug": "hello world", "title": "Hello", "words": 7}


@pytest.mark.parametrize(
    ("data", "version", "event"),
    [
        (V1, None, PostCreated(slug="hello world", title="Hello World", words=2)),
        (V1, "1", PostCreated(slug="hello world", title="Hello World", words=2)),
        (V2, "2", PostCreated(slug="hello world", title="Hello there world", words=3)),
        (V3, "3", PostCreated(slug="hello world", title="Hello", words=7)),
    ],
)
async def test_older_version_is_upcast_step_by_step(
    data: dict[str, Any], version: str | None, event: PostCreated, seen: Seen
) -> None:
    assert (await seen.get(data, version)).action is Action.ACK
    assert seen.events == [event]


@pytest.mark.parametrize("version", ["4", "999999999", "9" * 40, "0", "-1", "v2", "", "2.0"])
async def test_unknown_version_waits_longest_and_is_dead_lettered_after_its_attempts(version: str, seen: Seen) -> None:
    seen.router._retry = RetryPolicy(3, 1.0, 300.0)
    first = await seen.get(V3, version)
    assert (first.action, first.delay) == (Action.RETRY, 300.0)
    last = await seen.get(V3, version, attempt=3)
    assert last.reason is not None
    assert (last.action, last.reason.reason, last.reason.attempts) == (Action.DEAD_LETTER, "unknown_version", 3)
    assert seen.events == []


async def test_message_of_an_unknown_version_is_given_back_for_the_longest_pause(seen: Seen) -> None:
    pauses: list[float] = []
    nacked = asyncio.Event()

    class Bus(MemoryBus):
        async def _nack(self, received: Received, delay: float) -> None:
            pauses.append(delay)
            nacked.set()

    bus = Bus()
    seen.router._retry = RetryPolicy(3, 1.0, 300.0)
    consumer = Consumer(Through(bus, SUBSCRIPTION), seen.router, max_concurrency=1, logger=TotoLogger("blog"))
    consumer.start()
    await bus.put(
        encode_message(TotoMessage(type="postCreated", data=V3)), SUBSCRIPTION, attributes={"schemaVersion": "4"}
    )
    async with asyncio.timeout(DEADLINE):
        await nacked.wait()
    await consumer.stop(0.0)
    assert pauses == [300.0]


async def test_invalid_data_is_dead_lettered_at_once_without_its_values(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = await seen.get({"slug": "a", "title": "A", "words": SECRET}, "3")
    assert outcome.reason is not None
    assert (outcome.action, outcome.reason.reason) == (Action.DEAD_LETTER, "invalid")
    assert outcome.reason.description == "PostCreated: words (int_parsing)"
    assert outcome.failure is not None
    assert "words (int_parsing)" in outcome.failure.text
    assert SECRET not in caplog.text + outcome.failure.text
    assert seen.events == []


async def test_data_that_cannot_be_upcast_because_it_is_no_object_is_invalid(seen: Seen) -> None:
    outcome = await seen.get(["a"], "1")
    assert outcome.reason is not None
    assert outcome.reason.reason == "invalid"


def raising(error: Exception) -> MessageRouter:
    class Broken(TotoEvent, type="postCreated", version=2):
        slug: str

    @upcast(Broken, from_version=1)
    def fail(data: dict[str, Any]) -> dict[str, Any]:
        raise error

    @toto_handler
    async def handle(message: TotoMessage[Broken]) -> None:
        raise AssertionError("it must not run")

    return router(handle)


async def test_upcast_that_raises_is_a_failure_with_the_longest_pause() -> None:
    broken = raising(KeyError("title"))
    broken._retry = RetryPolicy(3, 1.0, 300.0)
    first = await broken.handle(delivery(V1))
    assert (first.action, first.delay) == (Action.RETRY, 300.0)
    last = await broken.handle(delivery(V1, attempt=3))
    assert last.reason is not None
    assert (last.reason.reason, last.reason.error_class) == ("attempts_exhausted", "KeyError")


async def test_upcast_may_say_that_it_will_never_succeed() -> None:
    outcome = await raising(NonRetryableError("it was never published")).handle(delivery(V1))
    assert outcome.reason is not None
    assert outcome.reason.reason == "non_retryable"


async def test_upcast_that_returns_no_dict_has_failed() -> None:
    class Odd(TotoEvent, type="postCreated", version=2):
        slug: str

    @upcast(Odd, from_version=1)
    def nothing(data: dict[str, Any]) -> dict[str, Any]:
        return None  # type: ignore[return-value]

    @toto_handler
    async def handle(message: TotoMessage[Odd]) -> None:
        raise AssertionError("it must not run")

    last = await router(handle).handle(delivery(V1, attempt=3))
    assert last.reason is not None
    assert last.reason.description == "The upcast of Odd from version 1 returned no dict."


@pytest.mark.parametrize(
    ("data", "version", "words"),
    [
        (V3, "3", 7),  # valid as what it claims to be
        (V2, "2", 3),
        (V1, "3", 2),  # not valid as that, so the claim is not believed
        (V1, "4", 2),
        (V1, "x", 2),
        (V1, None, 2),
    ],
)
async def test_unauthenticated_version_is_used_only_if_the_data_is_valid_for_it(
    data: dict[str, Any], version: str | None, words: int, seen: Seen
) -> None:
    assert (await seen.get(data, version, vouched=False)).action is Action.ACK
    assert [event.words for event in seen.events] == [words]


async def test_unauthenticated_version_does_not_keep_invalid_data() -> None:
    class First(TotoEvent, type="postCreated"):
        slug: str

    @toto_handler
    async def handle(message: TotoMessage[First]) -> None:
        raise AssertionError("it must not run")

    outcome = await router(handle).handle(delivery({"slug": 7}, "2", vouched=False))
    assert outcome.reason is not None
    assert outcome.reason.reason == "invalid"


def test_upcasts_with_a_gap_are_refused_when_the_handler_is_declared() -> None:
    class Gap(TotoEvent, type="gap", version=4):
        pass

    @upcast(Gap, from_version=1)
    def first(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @toto_handler
    async def handle(message: TotoMessage[Gap]) -> None: ...

    with pytest.raises(ConfigurationError, match="Gap needs an upcast from version 2, 3"):
        MessageBusHandlerConfig(handler=handle)


class Two(TotoEvent, type="two", version=2):
    pass


@pytest.mark.parametrize("version", [0, 2, 3, -1, True, "1", 1.0])
def test_version_that_is_not_older_is_refused(version: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"@upcast\(Two\): from_version must be lower than the version 2"):
        upcast(Two, from_version=version)


def test_upcast_of_an_abstract_event_or_another_class_is_refused() -> None:
    class Abstract(TotoEvent):
        pass

    for wrong, said in ((Abstract, "@upcast: Abstract is abstract"), (dict, "@upcast: dict is not a subclass")):
        with pytest.raises(ConfigurationError, match=said):
            upcast(wrong, from_version=1)  # type: ignore[arg-type]


def test_async_upcast_and_a_second_one_are_refused() -> None:
    class Once(TotoEvent, type="once", version=2):
        pass

    async def asynchronous(data: dict[str, Any]) -> dict[str, Any]:
        return data

    with pytest.raises(ConfigurationError, match=r"takes a plain `def`"):
        upcast(Once, from_version=1)(asynchronous)  # type: ignore[type-var]
    upcast(Once, from_version=1)(dict)
    with pytest.raises(ConfigurationError, match="Once has two upcasts from version 1"):
        upcast(Once, from_version=1)(dict)
