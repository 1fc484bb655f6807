"""The local bus against a model: whatever is done to it in whatever order, it knows what a dict knows.

Two processes (two writers on one folder) consume two subscriptions, one of them ordered. They publish, receive, settle
in every way, also with leases long lost, time passes, one of them hangs, all crash, all restart.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from support.local.bus import (
    BLOG,
    DEADLINE,
    LEASE,
    POSTS,
    Clock,
    crash_image,
    make_bus,
    nothing_comes,
    number_of,
    receive,
    rows_of,
    settled,
)
from totoms.errors import LeaseLost
from totoms.local.messages.bus import LocalMessageBus
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import TotoMessage
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

PLAIN = BLOG
ORDERED = replace(BLOG, name="ordered-posts", ordered=True)
SUBSCRIPTIONS = (PLAIN, ORDERED)
REASON = DeadLetterReason("non_retryable", "Bad", "it is bad", 1)
_T = TypeVar("_T")

chosen_process = strategies.integers(0, 1)
chosen_subscription = strategies.sampled_from(SUBSCRIPTIONS)
chosen = strategies.integers(0, 1_000)


@dataclass
class Entry:
    """What the model knows of one message in one subscription."""

    position: int
    due: float
    key: str | None
    attempt: int = 0
    owner: Received | None = None


@dataclass
class Handle:
    """What a consumer holds, or held."""

    process: int
    number: int
    received: Received


class BusMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.entries: dict[str, dict[int, Entry]] = {one.name: {} for one in SUBSCRIPTIONS}
        self.dead: dict[str, dict[int, Entry]] = {one.name: {} for one in SUBSCRIPTIONS}
        self.handles: list[Handle] = []
        self.next_number = 0
        self.positions = 0
        self.folders = 0
        self.left_behind: list[LocalMessageBus] = []
        self.root = self.folder / "root"
        self.root.mkdir()
        self.buses = [self.open(), self.open()]

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        async def bounded() -> _T:
            async with asyncio.timeout(2 * DEADLINE):
                return await work

        return self.runner.run(bounded())

    def new_folder(self) -> Path:
        self.folders += 1
        return self.folder / f"folder-{self.folders}"

    def open(self) -> LocalMessageBus:
        link = self.new_folder()
        link.symlink_to(self.root)
        bus: LocalMessageBus = make_bus(link, self.clock)
        for subscription in SUBSCRIPTIONS:
            self.do(bus._subscribe(subscription, create=True))
        return bus

    def place(self) -> int:
        self.positions += 1
        return self.positions

    def available(self, subscription: Subscription) -> list[int]:
        entries = self.entries[subscription.name]
        heads: dict[str, int] = {}
        for entry in entries.values():
            if entry.key is not None:
                heads[entry.key] = min(heads.get(entry.key, entry.position), entry.position)
        found = [
            number
            for number, entry in entries.items()
            if entry.due <= self.clock.now
            and not (subscription.ordered and entry.key is not None and heads[entry.key] != entry.position)
        ]
        return sorted(found, key=lambda number: (entries[number].due, entries[number].position))

    # --- publishing and receiving ---

    @rule(
        process=chosen_process,
        key=strategies.sampled_from([None, None, "a", "b"]),
        delay=strategies.sampled_from([0, 0, 5]),
    )
    def publish(self, process: int, key: str | None, delay: float) -> None:
        number, self.next_number = self.next_number, self.next_number + 1
        message = TotoMessage(type="posted", data={"number": number})
        self.do(self.buses[process].publish_message(POSTS, message, ordering_key=key, delay=float(delay)))
        position = self.place()
        for entries in self.entries.values():
            entries[number] = Entry(position, self.clock.now + delay, key)

    @rule(process=chosen_process, subscription=chosen_subscription, most=strategies.integers(1, 4))
    def receive(self, process: int, subscription: Subscription, most: int) -> None:
        bus, available = self.buses[process], self.available(subscription)
        if not available:
            assert self.do(nothing_comes(bus, subscription))
            return
        batch = self.do(receive(bus, subscription, most))
        assert [number_of(one) for one in batch] == available[:most]
        for number, received in zip(available, batch, strict=False):
            self.lease(process, subscription, number, received)

    @rule(process=chosen_process, subscription=chosen_subscription)
    def publish_to_a_consumer_that_waits(self, process: int, subscription: Subscription) -> None:
        if self.available(subscription):
            return
        number, self.next_number = self.next_number, self.next_number + 1
        batch = self.do(self.wait_and_publish(process, subscription, number))
        position = self.place()
        for entries in self.entries.values():
            entries[number] = Entry(position, self.clock.now, None)
        assert [number_of(one) for one in batch] == [number]
        self.lease(process, subscription, number, batch[0])

    async def wait_and_publish(self, process: int, subscription: Subscription, number: int) -> list[Received]:
        waiting = asyncio.ensure_future(receive(self.buses[process], subscription, 1))
        await settled(self.buses[process])
        await self.buses[process].publish_message(POSTS, TotoMessage(type="posted", data={"number": number}))
        return await waiting

    def lease(self, process: int, subscription: Subscription, number: int, received: Received) -> None:
        entry = self.entries[subscription.name][number]
        entry.attempt += 1
        entry.due, entry.owner = self.clock.now + LEASE, received
        assert received.attempt == entry.attempt
        self.handles.append(Handle(process, number, received))

    # --- settling ---

    def settle(self, choice: int, how: Callable[[LocalMessageBus, Received], Coroutine[Any, Any, Any]]) -> Entry | None:
        """Settle with any handle there ever was. Return the entry if the model says that it still counts."""
        handle = self.handles[choice % len(self.handles)]
        entry = self.entries[handle.received.subscription.name].get(handle.number)
        held = entry is not None and entry.owner is handle.received
        try:
            answer = self.do(how(self.buses[handle.process], handle.received))
        except LeaseLost as error:
            answer = [error]
        if answer is not None:
            assert isinstance(answer[0], LeaseLost) is not held
        return entry if held else None

    def drop(self, entry: Entry) -> None:
        for entries in self.entries.values():
            for number in [number for number, one in entries.items() if one is entry]:
                del entries[number]

    @precondition(lambda self: self.handles)
    @rule(choice=chosen)
    def ack(self, choice: int) -> None:
        if entry := self.settle(choice, lambda bus, one: bus._ack([one])):
            self.drop(entry)

    @precondition(lambda self: self.handles)
    @rule(choice=chosen, delay=strategies.sampled_from([0, 10]))
    def nack(self, choice: int, delay: float) -> None:
        async def nack(bus: LocalMessageBus, one: Received) -> list[None]:
            await bus._nack(one, float(delay))
            return [None]

        if entry := self.settle(choice, nack):
            entry.due, entry.owner = self.clock.now + delay, None

    @precondition(lambda self: self.handles)
    @rule(choice=chosen)
    def release(self, choice: int) -> None:
        if entry := self.settle(choice, lambda bus, one: bus._release([one])):
            entry.due, entry.owner, entry.attempt = 0.0, None, entry.attempt - 1

    @precondition(lambda self: self.handles)
    @rule(choice=chosen)
    def extend(self, choice: int) -> None:
        if entry := self.settle(choice, lambda bus, one: bus._extend([one])):
            entry.due = self.clock.now + LEASE

    @precondition(lambda self: self.handles)
    @rule(choice=chosen)
    def dead_letter(self, choice: int) -> None:
        async def bury(bus: LocalMessageBus, one: Received) -> list[None]:
            await bus._dead_letter(one, REASON)
            return [None]

        handle = self.handles[choice % len(self.handles)]
        if entry := self.settle(choice, bury):
            self.drop(entry)
            self.dead[handle.received.subscription.name][handle.number] = entry

    @rule(process=chosen_process, subscription=chosen_subscription)
    def replay(self, process: int, subscription: Subscription) -> None:
        dead = self.dead[subscription.name]
        assert self.do(self.buses[process].replay_dead_letters(subscription.name)) == len(dead)
        for number, entry in dead.items():
            again = Entry(self.place(), self.clock.now, entry.key)
            self.entries[subscription.name][number] = again
        dead.clear()

    # --- what befalls them ---

    @rule(seconds=strategies.sampled_from([1.0, 6.0, LEASE - 1, LEASE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(process=chosen_process)
    def hang(self, process: int) -> None:
        """One process stands still for good; what it holds is lost to it."""
        hung = self.buses[process]
        for feed in hung._feeds:
            feed.stop()
        self.left_behind.append(hung)
        self.handles = [handle for handle in self.handles if handle.process != process]
        self.buses[process] = self.open()

    @rule()
    def crash(self) -> None:
        image = crash_image(self.root, self.new_folder())
        self.left_behind += self.buses
        self.root = image
        self.reopen()

    @rule()
    def restart(self) -> None:
        for bus in self.buses:
            self.do(bus.close())
        self.close_those_left_behind()
        self.reopen()

    def reopen(self) -> None:
        self.handles.clear()
        self.buses = [self.open(), self.open()]

    def close_those_left_behind(self) -> None:
        for bus in self.left_behind:
            self.do(bus.close())
        self.left_behind.clear()

    # --- the comparison ---

    @invariant()
    def database_knows_what_the_model_knows(self) -> None:
        sql = "SELECT s.name, d.body, d.attempt FROM deliveries d JOIN subscriptions s ON s.id = d.subscription"
        found = sorted((name, _number(body), attempt) for name, body, attempt in rows_of(self.root, sql))
        assert found == sorted(
            (name, number, entry.attempt) for name, entries in self.entries.items() for number, entry in entries.items()
        )
        buried = rows_of(self.root, "SELECT subscription, body FROM dead_letters")
        assert sorted((name, _number(body)) for name, body in buried) == sorted(
            (name, number) for name, dead in self.dead.items() for number in dead
        )

    def teardown(self) -> None:
        self.left_behind += self.buses
        self.close_those_left_behind()
        self.runner.close()
        shutil.rmtree(self.folder)


def _number(body: bytes) -> int:
    return int(body.split(b'"number":')[1].split(b"}")[0])


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        BusMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_bus_does_what_the_model_does() -> None:
    run(examples=8, steps=40)


@pytest.mark.faults
def test_bus_does_what_the_model_does_for_ten_thousand_steps(figure: Callable[[str, str], None]) -> None:
    examples, steps = 100, 100
    run(examples, steps)
    figure("local bus against a dict, state machine", f"{examples} runs of up to {steps} steps: 0 differences")
