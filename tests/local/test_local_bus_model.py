"""The local bus against a model of it: publish, receive, settle, expire, crash and restart in any order."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from local_kit import Kit
from totoms.envelope import DeadLetterReason, Received
from totoms.errors import LeaseLost
from totoms.local.bus import LocalMessageBus

LEASE = LocalMessageBus.lease_seconds
CONSUMERS = st.integers(0, 1)
PICK = st.integers(0, 1 << 30)


class Model:
    """What is known of one message."""

    def __init__(self, key: str | None, due: float) -> None:
        self.key = key
        self.due = due
        self.attempt = 0
        self.owner: Received | None = None


class BusMachine(RuleBasedStateMachine):
    """Two consumers, each like a process of its own: they share nothing but the files."""

    ordered = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp(prefix="bus-model-")
        self.kit = Kit(Path(self.folder) / "root")
        self.subscription = self.kit.subscription(ordered=self.ordered)
        self.alive: dict[str, Model] = {}
        self.dead: list[str] = []
        self.stale: list[tuple[int, Received]] = []
        self.owners: dict[Received, int] = {}
        self.buses: list[LocalMessageBus] = []
        for _ in range(2):
            self.buses.append(self.do(self.start()))

    def do(self, operation: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(operation, 30))

    async def start(self) -> LocalMessageBus:
        bus, _ = await self.kit.consumer(own_writer=True, ordered=self.ordered)
        return bus

    def teardown(self) -> None:
        for bus in self.buses:
            self.do(bus.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    # --- what the model says ---

    def may_be_had(self) -> set[str]:
        found = set()
        keys: set[str] = set()
        for message_id, one in self.alive.items():  # in the order they were published
            blocked = self.ordered and one.key is not None and one.key in keys
            if one.key is not None:
                keys.add(one.key)
            if not blocked and one.due <= self.kit.clock.now:
                found.add(message_id)
        return found

    def held(self, which: int) -> list[Received]:
        return [one.owner for one in self.alive.values() if one.owner is not None and self.owners[one.owner] == which]

    # --- what may happen ---

    @rule(
        which=CONSUMERS, number=st.integers(1, 4), key=st.sampled_from([None, "a", "b"]), delay=st.sampled_from([0, 7])
    )
    def publish(self, which: int, number: int, key: str | None, delay: float) -> None:
        for message_id in self.do(
            self.kit.publish(self.buses[which], *range(number), ordering_key=key, delay=float(delay))
        ):
            self.alive[message_id] = Model(key, self.kit.clock.now + delay)

    @rule(which=CONSUMERS, most=st.integers(1, 5))
    def receive(self, which: int, most: int) -> None:
        wanted = self.may_be_had()
        if not wanted:
            assert self.do(self.kit.nothing(self.buses[which], self.subscription))
            return
        batch = self.do(self.buses[which]._receive(self.subscription, most, 20))
        assert 1 <= len(batch) <= most
        for one in batch:
            self.take(which, one, wanted)

    @rule(which=CONSUMERS, most=st.integers(1, 5), number=st.integers(1, 5))
    def publish_to_a_waiting_consumer(self, which: int, most: int, number: int) -> None:
        if self.may_be_had():
            return

        async def both() -> tuple[list[Received], list[str]]:
            waiting = asyncio.ensure_future(self.buses[which]._receive(self.subscription, most, 20))
            await asyncio.sleep(0)
            ids = await self.kit.publish(self.buses[1 - which if most % 2 else which], *range(number))
            return await waiting, ids

        batch, ids = self.do(both())
        for message_id in ids:
            self.alive[message_id] = Model(None, self.kit.clock.now)
        assert 1 <= len(batch) <= most
        for one in batch:
            self.take(which, one, set(ids))

    def take(self, which: int, one: Received, wanted: set[str]) -> None:
        assert one.message_id in wanted, "this one could not be had"
        model = self.alive[one.message_id]
        if model.owner is not None:
            self.stale.append((self.owners[model.owner], model.owner))
        model.attempt += 1
        assert one.attempt == model.attempt
        model.owner, model.due = one, self.kit.clock.now + LEASE
        self.owners[one] = which

    @rule(which=CONSUMERS, pick=PICK)
    def cancel_a_wait(self, which: int, pick: int) -> None:
        async def cancelled() -> list[Received]:
            waiting = asyncio.ensure_future(self.buses[which]._receive(self.subscription, 3, 20))
            for _ in range(pick % 8):
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                return await waiting
            except asyncio.CancelledError:
                return []

        wanted = self.may_be_had()
        if any(self.alive[message_id].owner is not None for message_id in wanted):
            return  # whether who held it too long still holds it, depends on how far the wait came
        for one in self.do(cancelled()):
            self.take(which, one, wanted)

    def pick(self, which: int, pick: int) -> Received | None:
        held = self.held(which)
        return held[pick % len(held)] if held else None

    @rule(which=CONSUMERS)
    def ack_all(self, which: int) -> None:
        held = self.held(which)
        if held:
            assert self.do(self.buses[which]._ack(held)) == [None] * len(held)
            for one in held:
                del self.alive[one.message_id]

    @rule(which=CONSUMERS, pick=PICK)
    def ack(self, which: int, pick: int) -> None:
        one = self.pick(which, pick)
        if one is not None:
            assert self.do(self.buses[which]._ack([one])) == [None]
            del self.alive[one.message_id]
            self.stale.append((which, one))

    @rule(which=CONSUMERS, pick=PICK, delay=st.sampled_from([0.0, 5.0, 40.0]))
    def nack(self, which: int, pick: int, delay: float) -> None:
        one = self.pick(which, pick)
        if one is not None:
            self.do(self.buses[which]._nack(one, delay))
            self.let_go(which, one, self.kit.clock.now + delay)

    @rule(which=CONSUMERS)
    def release(self, which: int) -> None:
        held = self.held(which)
        if held:
            self.do(self.buses[which]._release(held))
            for one in held:
                self.let_go(which, one, 0.0)
                self.alive[one.message_id].attempt -= 1

    def let_go(self, which: int, one: Received, due: float) -> None:
        model = self.alive[one.message_id]
        model.owner, model.due = None, due
        self.stale.append((which, one))

    @rule(which=CONSUMERS)
    def extend(self, which: int) -> None:
        held = self.held(which)
        if held:
            assert self.do(self.buses[which]._extend(held)) == [None] * len(held)
            for one in held:
                self.alive[one.message_id].due = self.kit.clock.now + LEASE

    @rule(which=CONSUMERS, pick=PICK)
    def dead_letter(self, which: int, pick: int) -> None:
        one = self.pick(which, pick)
        if one is not None:
            self.do(self.buses[which]._dead_letter(one, DeadLetterReason("non_retryable", attempts=one.attempt)))
            del self.alive[one.message_id]
            self.dead.append(one.message_id)
            self.stale.append((which, one))

    @precondition(lambda self: self.dead)
    @rule(which=CONSUMERS)
    def replay(self, which: int) -> None:
        letters = self.do(self.buses[which].list_dead_letters(self.subscription.name))
        assert self.do(self.buses[which].replay_dead_letters(self.subscription.name, [letters[0].letter_id])) == 1
        assert letters[0].message_id == self.dead[0]
        # Of its key nothing is known any more to the model.
        key = self.do(
            self.buses[which]._do(
                lambda connection: connection.execute(
                    "SELECT ordering_key FROM deliveries WHERE message_id = ?", (self.dead[0],)
                ).fetchone()[0]
            )
        )
        self.alive[self.dead.pop(0)] = Model(key, self.kit.clock.now)

    @precondition(lambda self: self.stale)
    @rule(pick=PICK, how=st.sampled_from(["ack", "nack", "extend", "dead letter", "release"]))
    def use_a_stale_handle(self, pick: int, how: str) -> None:
        which, one = self.stale[pick % len(self.stale)]
        bus = self.buses[which]
        if how in ("ack", "extend"):
            (lost,) = self.do(bus._ack([one]) if how == "ack" else bus._extend([one]))
            assert isinstance(lost, LeaseLost)
        elif how == "release":
            self.do(bus._release([one]))
        else:
            with pytest.raises(LeaseLost):
                self.do(bus._nack(one, 0.0) if how == "nack" else bus._dead_letter(one, DeadLetterReason("x")))

    @rule(seconds=st.sampled_from([1.0, 6.0, LEASE / 2, LEASE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.kit.advance(seconds)

    @rule(which=CONSUMERS, closed=st.booleans())
    def crash_or_restart(self, which: int, closed: bool) -> None:
        old = self.buses[which]
        if closed:
            self.do(old.close())
        else:  # as a killed process leaves it: nothing given back, and the connection gone
            writer, old._writer = old._writer, None
            assert writer is not None
            writer._feeds = []
            writer.close()
            old._closed = True
        self.buses[which] = self.do(self.start())
        for one in self.alive.values():
            if one.owner is not None and self.owners[one.owner] == which:
                self.stale.append((which, one.owner))
                one.owner = None

    @invariant()
    def all_are_stored(self) -> None:
        stored = self.do(
            self.buses[0]._do(lambda connection: connection.execute("SELECT message_id FROM deliveries").fetchall())
        )
        assert sorted(row[0] for row in stored) == sorted(self.alive)
        letters = self.do(self.buses[1].list_dead_letters(self.subscription.name, 10_000))
        assert [letter.message_id for letter in letters] == self.dead


class OrderedBusMachine(BusMachine):
    """The same where ordering keys count."""

    ordered = True


MACHINES = pytest.mark.parametrize("machine", [BusMachine, OrderedBusMachine])
CALM = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@MACHINES
def test_bus_does_what_the_model_says(machine: type[BusMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=40, **CALM))


@pytest.mark.faults
@MACHINES
def test_bus_does_what_the_model_says_for_ten_thousand_steps(machine: type[BusMachine], figure: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=100, **CALM))
    figure(f"{machine.__name__}: 100 runs of up to 100 steps against a model", "no difference")
