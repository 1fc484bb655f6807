"""The topic of a test, with its buses and listeners."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final

import pytest

from totoms.context import new_cid
from totoms.errors import Unsupported
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason
from totoms.messages.driver import DEAD_LETTERS, ORDERING
from totoms.messages.events import TotoEvent
from totoms.messages.message import MessageDestination, TotoMessage
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Backlog, RetryPolicy, Subscription
from totoms.testing.messages.harness import MessageBusHarness
from totoms.testing.messages.listener import BARRIER, MESSAGE_TYPE, Listener, Process, succeed
from totoms.testing.messages.recording import Progress

NAME: Final = "posts"
POSTS: Final = MessageDestination(topic=NAME)
AT_ONCE: Final = RetryPolicy(max_attempts=5, min_backoff=0.0, max_backoff=0.0)
"""Retries without backoff."""
CLOCK_SKEW: Final = 0.25
"""Seconds by which two clocks may differ."""
_COUNT_PAUSE: Final = 0.1


class Topic:
    """A new topic. Use it with ``async with``, which stops the listeners at the end.

    Args:
        harness: The harness of the test.
        capabilities: The capabilities that the test class declares.

    Attributes:
        identifier: The provider's identifier of the topic.
        progress: Waits for progress of the listeners.
    """

    def __init__(self, harness: MessageBusHarness, capabilities: frozenset[str]) -> None:
        self.harness = harness
        self.capabilities = capabilities
        self.identifier = ""
        self.progress = Progress(harness.patience)
        self._buses: list[MessageBus] = []
        self._listeners: list[Listener] = []
        self._barriers = 0

    async def __aenter__(self) -> Topic:
        """Create the topic."""
        self.identifier = await self.harness.create_topic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the listeners."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners))

    async def connect(self) -> MessageBus:
        """Return a new bus with the topic as ``posts``."""
        bus = await self.harness.connect({NAME: self.identifier})
        declared = set(bus.capabilities)
        if not bus._keeps_order(self.identifier):
            declared.discard(ORDERING)
        assert declared == self.capabilities, "the test class and the bus declare different capabilities"
        self._buses.append(bus)
        return bus

    async def bus(self) -> MessageBus:
        """Return the bus that the test publishes with."""
        return self._buses[0] if self._buses else await self.connect()

    def subscription(
        self, *, retry: RetryPolicy = AT_ONCE, ordered: bool = False, identifier: str = ""
    ) -> Subscription:
        """Return a subscription with a new name, by default to this topic, without creating it."""
        name = f"tested-{new_cid()[:16]}"
        return Subscription(name, identifier or self.identifier, NAME, retry=retry, ordered=ordered)

    async def subscribe(self, subscription: Subscription | None = None) -> Receiver:
        """Subscribe with a new bus; return the receiver, for tests that receive and settle themselves.

        Args:
            subscription: By default a new one.
        """
        bus, subscription = await self.connect(), subscription or self.subscription()
        return await bus._subscribe(subscription, create=True)

    async def listen(
        self,
        process: Process = succeed,
        subscription: Subscription | None = None,
        *,
        max_concurrency: int = 8,
        timeout: float = 60.0,
        event: type[TotoEvent] | None = None,
    ) -> Listener:
        """Subscribe with a new bus and start a consumer.

        Args:
            process: The function that handles messages.
            subscription: By default a new one.
            max_concurrency: The most handlers at a time.
            timeout: The timeout of a handler in seconds.
            event: The class of the data; by default it is untyped. Barriers are then not acked.
        """
        bus, subscription = await self.connect(), subscription or self.subscription()
        subscribe = functools.partial(bus._subscribe, subscription, create=True)
        receiver = await subscribe()
        return self.consume(
            receiver, process, max_concurrency=max_concurrency, timeout=timeout, event=event, subscribe=subscribe
        )

    def consume(
        self,
        receiver: Receiver,
        process: Process = succeed,
        *,
        max_concurrency: int = 8,
        timeout: float = 60.0,
        event: type[TotoEvent] | None = None,
        subscribe: Callable[[], Awaitable[Receiver]] | None = None,
    ) -> Listener:
        """Start a consumer on a receiver; `subscribe` returns another one if the subscription has vanished."""
        listener = Listener(
            receiver,
            process,
            self.progress,
            max_concurrency=max_concurrency,
            timeout=timeout,
            event=event,
            subscribe=subscribe,
        )
        self._listeners.append(listener)
        return listener

    async def publish(self, *ids: str, **options: Any) -> list[str]:
        """Publish a message for each id, one after another; return their message ids."""
        bus = await self.bus()
        return [await bus.publish_message(POSTS, message(one), **options) for one in ids]

    async def receive(self, receiver: Receiver, number: int = 1) -> list[Received]:
        """Receive exactly `number` messages without settling them.

        Raises:
            AssertionError: They did not arrive within the harness's patience.
        """
        got: list[Received] = []
        patience = self.harness.patience
        async with self.promptly(f"{number} messages are received"):
            while len(got) < number:
                got += await receiver.receive(number - len(got), patience)
        assert len(got) == number, f"received {len(got)} messages instead of {number}"
        return got

    async def receive_one(self, receiver: Receiver) -> Received:
        """Receive one message without settling it."""
        (one,) = await self.receive(receiver)
        return one

    async def nothing_left(self, receiver: Receiver) -> None:
        """Assert that no message is due: two messages published now are received alone."""
        for _ in range(2):
            (message_id,) = await self.publish(f"last-{new_cid()}")
            one = await self.receive_one(receiver)
            assert one.message_id == message_id, f"received another message, attempt {one.attempt}"
            assert list(await receiver.ack([one])) == [None]

    async def barrier(self) -> None:
        """Publish two barriers, and wait until each subscription with a running listener has acked them.

        All messages that were due before have arrived by then.
        """
        bus = await self.bus()
        for _ in range(2):
            self._barriers += 1
            barrier = message(f"{BARRIER}-{self._barriers}")
            barrier.msg = BARRIER
            message_id = await bus.publish_message(POSTS, barrier)
            await self.progress.until(functools.partial(self._has_passed, message_id), "the barrier is acked")

    def _has_passed(self, message_id: str) -> bool:
        passed = {
            listener.subscription.name
            for listener in self._listeners
            if any(one.received.message_id == message_id for one in listener.receiver.which("ack"))
        }
        return passed >= {listener.subscription.name for listener in self._listeners if not listener.stopped}

    async def until_backlog(self, subscription: Subscription, messages: int) -> Backlog:
        """Wait until the broker counts exactly so many messages; return the backlog. A broker may count late."""
        bus = await self.bus()
        async with self.promptly(f"{messages} messages are counted"):
            while True:
                found = await bus._backlog(subscription)
                assert found is not None, "the backend declares BACKLOG and gives no number"
                if found.messages == messages:
                    return found
                await asyncio.sleep(_COUNT_PAUSE)

    @contextlib.asynccontextmanager
    async def promptly(self, what: str) -> AsyncIterator[None]:
        """Assert that the block ends within the harness's patience; `what` says what it waits for."""
        patience = self.harness.patience
        try:
            async with asyncio.timeout(patience):
                yield
        except TimeoutError:
            raise AssertionError(f"not within {patience:g} s: {what}") from None

    async def advance(self, seconds: float) -> None:
        """Wait, or move the broker's clock."""
        await self.harness.advance(seconds)

    async def expire_leases(self) -> None:
        """Advance the broker's clock beyond the end of all leases that are not extended."""
        await self.advance(1.25 * self.harness.lease_seconds)

    async def receive_after(self, pauses: Mapping[str, float], since: float, receiver: Receiver) -> list[Received]:
        """Receive and ack messages, and assert that none arrives before its pause is over.

        Without a virtual clock a busy machine may be late, so this checks when each message arrives, and not which have
        not arrived at some time.

        Args:
            pauses: The pause of each message in seconds.
            since: The `time.monotonic` before the pauses began.
            receiver: The receiver.

        Returns:
            The messages, in the order of arrival.
        """
        came: list[Received] = []
        passed = 0.0
        if self.harness.virtual_clock:
            await self.nothing_left(receiver)
        for pause in sorted(pauses.values()):
            if self.harness.virtual_clock:
                await self.advance(pause - CLOCK_SKEW - passed)
                await self.nothing_left(receiver)
                await self.advance(2 * CLOCK_SKEW)
                passed = pause + CLOCK_SKEW
            one = await self.receive_one(receiver)
            waited = passed if self.harness.virtual_clock else time.monotonic() - since
            assert waited >= pauses[one.message_id] - CLOCK_SKEW, f"a message arrived after {waited:g} s"
            assert list(await receiver.ack([one])) == [None]
            came.append(one)
        assert {one.message_id for one in came} == set(pauses)
        return came

    async def dead_letters(self, subscription: Subscription) -> list[DeadLetter]:
        """Return the dead letters. Without DEAD_LETTERS assert that listing is refused, and return none."""
        bus = await self.bus()
        if DEAD_LETTERS in self.capabilities:
            return await bus.list_dead_letters(subscription.name)
        with pytest.raises(Unsupported):
            await bus.list_dead_letters(subscription.name)
        return []

    async def check_letter_id(self, subscription: Subscription, letter_id: str | None) -> None:
        """Assert that a dead letter has the id that the receiver returned for it, if the backend tells one."""
        letters = await self.dead_letters(subscription)
        if letter_id is not None and DEAD_LETTERS in self.capabilities:
            assert letter_id in {letter.letter_id for letter in letters}

    async def check_dead_letters(self, subscription: Subscription, wanted: Mapping[str, DeadLetterReason]) -> None:
        """Assert the ids and reasons of the dead letters, if the backend lists them."""
        letters = await self.dead_letters(subscription)
        if DEAD_LETTERS in self.capabilities:
            assert {letter.message_id: letter.reason for letter in letters} == wanted
            assert len(letters) == len(wanted), "a message was dead-lettered twice"


def message(name: str, **fields: Any) -> TotoMessage:
    """Return a message whose id is `name`."""
    return TotoMessage(type=MESSAGE_TYPE, id=name, **fields)
