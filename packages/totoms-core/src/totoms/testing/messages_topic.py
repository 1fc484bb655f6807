"""A topic of a test's own, those who publish to it and those who listen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final

import pytest

from totoms.bus import DEAD_LETTERS, PULL, MessageBus
from totoms.context import new_cid
from totoms.envelope import DeadLetter, DeadLetterReason, Received, RetryPolicy, Subscription
from totoms.errors import Unsupported
from totoms.messages import MessageDestination, TotoMessage
from totoms.testing.messages_harness import MessageBusHarness
from totoms.testing.messages_listener import BARRIER, MESSAGE_TYPE, Listener, Process, succeed
from totoms.testing.messages_watched import News

NAME: Final = "posts"
POSTS: Final = MessageDestination(topic=NAME)
AT_ONCE: Final = RetryPolicy(max_attempts=5, min_backoff=0.0, max_backoff=0.0)
"""Failed messages come again without a pause."""
_Test = Callable[..., Coroutine[Any, Any, None]]


class Topic:
    """Use it with ``async with``: at the end its listeners are stopped.

    Args:
        harness: The test's hold on the broker.
        capabilities: What the test's class declares.

    Attributes:
        identifier: The provider's.
        news: Wakes who waits for something that listeners do.
    """

    def __init__(self, harness: MessageBusHarness, capabilities: frozenset[str]) -> None:
        self.harness = harness
        self.capabilities = capabilities
        self.identifier = ""
        self.news = News(harness.patience)
        self._buses: list[MessageBus] = []
        self._listeners: list[Listener] = []
        self._barriers = 0

    async def __aenter__(self) -> Topic:
        """Make the topic."""
        self.identifier = await self.harness.create_topic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop who still listens."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners))

    async def connect(self) -> MessageBus:
        """Return a new bus that knows the topic as ``posts``."""
        bus = await self.harness.connect({NAME: self.identifier})
        assert bus.capabilities == self.capabilities, "the test and the bus do not declare the same capabilities"
        self._buses.append(bus)
        return bus

    async def bus(self) -> MessageBus:
        """Return the first bus, of those who publish."""
        return self._buses[0] if self._buses else await self.connect()

    def subscription(
        self, *, retry: RetryPolicy = AT_ONCE, ordered: bool = False, identifier: str = ""
    ) -> Subscription:
        """Return a subscription with a new name, by default to this topic; nobody has subscribed it yet."""
        name = f"tested-{new_cid()[:16]}"
        return Subscription(name, identifier or self.identifier, NAME, retry=retry, ordered=ordered)

    async def subscribe(self, subscription: Subscription | None = None) -> tuple[MessageBus, Subscription]:
        """Return a new bus that has subscribed: for tests that receive and settle themselves."""
        bus, subscription = await self.connect(), subscription or self.subscription()
        await bus._subscribe(subscription, create=True)
        return bus, subscription

    async def listen(
        self, process: Process = succeed, subscription: Subscription | None = None, *, max_concurrency: int = 8,
        timeout: float = 60.0,
    ) -> Listener:  # fmt: skip
        """Subscribe with a new bus and begin to consume.

        Args:
            process: What the handler does.
            subscription: By default a new one.
            max_concurrency: Handlers at a time.
            timeout: Seconds that a handler may take.
        """
        bus, subscription = await self.subscribe(subscription)
        return self.consume(bus, subscription, process, max_concurrency=max_concurrency, timeout=timeout)

    def consume(
        self, bus: MessageBus, subscription: Subscription, process: Process = succeed, *, max_concurrency: int = 8,
        timeout: float = 60.0,
    ) -> Listener:  # fmt: skip
        """Begin to consume with a bus that has subscribed."""
        listener = Listener(bus, subscription, process, self.news, max_concurrency=max_concurrency, timeout=timeout)
        self._listeners.append(listener)
        return listener

    async def publish(self, *ids: str, **options: Any) -> list[str]:
        """Publish a message for each id, one after another; return what the bus called them."""
        bus = await self.bus()
        return [await bus.publish_message(POSTS, message(one), **options) for one in ids]

    async def receive(self, bus: MessageBus, subscription: Subscription, number: int = 1) -> list[Received]:
        """Receive exactly `number` messages and settle nothing.

        Raises:
            AssertionError: They did not come within the harness's patience.
        """
        got: list[Received] = []
        patience = self.harness.patience
        async with self.promptly(f"{number} messages are received"):
            while len(got) < number:
                got += await bus._receive(subscription, number - len(got), patience)
        assert len(got) == number, f"more came than were asked for: {len(got)}"
        return got

    async def receive_one(self, bus: MessageBus, subscription: Subscription) -> Received:
        """Receive one message and settle nothing."""
        (one,) = await self.receive(bus, subscription)
        return one

    async def nothing_left(self, bus: MessageBus, subscription: Subscription) -> None:
        """Assert that nothing is to be had: of what is published now, one after the other, that alone comes."""
        for _ in range(2):
            (message_id,) = await self.publish(f"last-{new_cid()}")
            one = await self.receive_one(bus, subscription)
            assert one.message_id == message_id, f"a message came that must not come now: its attempt {one.attempt}"
            assert list(await bus._ack([one])) == [None]

    async def barrier(self) -> None:
        """Wait until what is published now, twice, has come through to each subscription that is listened to.

        What was to be had before has come by then.
        """
        bus = await self.bus()
        for _ in range(2):
            self._barriers += 1
            barrier = message(f"{BARRIER}-{self._barriers}")
            barrier.msg = BARRIER
            message_id = await bus.publish_message(POSTS, barrier)
            await self.news.until(
                functools.partial(self._has_passed, message_id), "a message behind all others comes through"
            )

    def _has_passed(self, message_id: str) -> bool:
        passed = {
            listener.subscription.name
            for listener in self._listeners
            if any(one.received.message_id == message_id for one in listener.bus.which("ack"))
        }
        return passed >= {listener.subscription.name for listener in self._listeners if not listener.stopped}

    @contextlib.asynccontextmanager
    async def promptly(self, what: str) -> AsyncIterator[None]:
        """Assert that the block ends within the harness's patience."""
        patience = self.harness.patience
        try:
            async with asyncio.timeout(patience):
                yield
        except TimeoutError:
            raise AssertionError(f"not within {patience:g} s: {what}") from None

    async def advance(self, seconds: float) -> None:
        """Let time pass for the broker."""
        await self.harness.advance(seconds)

    async def expire_leases(self) -> None:
        """Let so much time pass for the broker that leases not renewed have ended."""
        await self.advance(1.25 * self.harness.lease_seconds)

    async def almost(self, seconds: float, bus: MessageBus, subscription: Subscription) -> None:
        """Where the clock is virtual: let `seconds` pass, see that nothing is to be had, and let 0.5 more pass.

        Where it is not, there is nothing to be seen without a race: what comes, comes when it does.
        """
        if self.harness.virtual_clock:
            await self.advance(seconds)
            await self.nothing_left(bus, subscription)
            await self.advance(0.5)

    async def letters(self, subscription: Subscription) -> list[DeadLetter]:
        """Return the dead letters; without DEAD_LETTERS none, after listing them was refused."""
        bus = await self.bus()
        if DEAD_LETTERS in self.capabilities:
            return await bus.list_dead_letters(subscription.name)
        with pytest.raises(Unsupported):
            await bus.list_dead_letters(subscription.name)
        return []

    async def check_letters(self, subscription: Subscription, wanted: Mapping[str, DeadLetterReason]) -> None:
        """Assert which messages are dead, by id, and why; where dead letters can be listed."""
        letters = await self.letters(subscription)
        if DEAD_LETTERS in self.capabilities:
            assert {letter.message_id: letter.reason for letter in letters} == wanted
            assert len(letters) == len(wanted), "a message is dead twice"


def message(name: str, **fields: Any) -> TotoMessage:
    """Return a message whose id is `name`."""
    return TotoMessage(type=MESSAGE_TYPE, id=name, **fields)


def on_topic(test: _Test) -> _Test:
    """Give a test, in place of its harness, a topic."""
    return _given(test, pull=False)


def pulled(test: _Test) -> _Test:
    """Give a test, in place of its harness, a topic; without PULL assert instead that receiving is refused."""
    return _given(test, pull=True)


def _given(test: _Test, *, pull: bool) -> _Test:
    @functools.wraps(test)
    async def run(self: Any, harness: MessageBusHarness, *arguments: Any, **named: Any) -> None:
        async with Topic(harness, self.capabilities) as topic:
            bus = await topic.connect()
            if not pull or PULL in self.capabilities:
                await test(self, topic, *arguments, **named)
                return
            with pytest.raises(Unsupported):
                await bus._receive(topic.subscription(), 1, 0.0)

    given, _topic, *others = inspect.signature(test).parameters.values()
    harness = inspect.Parameter("harness", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([given, harness, *others])  # type: ignore[attr-defined]
    return run
