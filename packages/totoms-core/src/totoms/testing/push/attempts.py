"""Which pushes count as attempts: behaviour 58."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from totoms.messages.bus import MessageBus
from totoms.messages.message import ProcessingResponse, ProcessingStatus, TotoMessage, encode_message
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.testing.push.base import RETRY, PushTests
from totoms.testing.push.broker import CountingBroker
from totoms.testing.push.harness import PushHarness
from totoms.testing.push.service import MESSAGE_TYPE, succeed

_AWAY: Final = 60
"""Deliveries while the service is down: one for each second of a minute, or fewer if the broker makes fewer."""
_AT_A_TIME: Final = 4
_OVERLOAD: Final = 10


def _body(name: str) -> bytes:
    return encode_message(TotoMessage(type=MESSAGE_TYPE, id=name, timestamp="now", cid="c"))


def _fail(_message: TotoMessage) -> ProcessingResponse:
    return ProcessingResponse(ProcessingStatus.FAILED)


class PushAttempts(PushTests):
    """A broker counts every push that was not answered 2xx; totoms counts only failures of the handler."""

    async def test_58_absence_costs_no_message(self, harness: PushHarness) -> None:
        """After the service was down for a minute, each message is handled and none is dead-lettered."""
        service = await self._serve(harness)
        if service is None:
            return
        broker, names = CountingBroker(harness), [f"m-{number}" for number in range(5)]
        for name in names:
            broker.publish(_body(name), name)
        broker.fail_to_connect(min(_AWAY, harness.max_deliveries - 1))
        await broker.settle(service)
        assert sorted(message.id for message in service.handled) == names
        assert service.dead_lettered == []
        assert broker.given_up == []

    async def test_58_draining_costs_no_message(self, harness: PushHarness) -> None:
        """A message that a service refuses during shutdown is handled by the next one."""
        service = await self._serve(harness)
        if service is None:
            return
        await service.stop(harness.patience)
        broker = CountingBroker(harness)
        broker.publish(_body("m-1"), "m-1")
        for _ in range(RETRY.max_attempts + 1):
            assert set((await broker.deliver(service)).values()) == {503}
        following = await self._serve(harness)
        assert following is not None
        await broker.settle(following)
        assert [message.id for message in following.handled] == ["m-1"]
        assert service.dead_lettered == following.dead_lettered == []
        assert broker.given_up == []

    async def test_58_overload_costs_no_message(self, harness: PushHarness) -> None:
        """With ten times as many messages as slots, each is handled once and none is dead-lettered."""
        gate, changed, running, most = asyncio.Event(), asyncio.Event(), 0, 0

        async def process(message: TotoMessage) -> ProcessingResponse:
            nonlocal running, most
            running += 1
            most = max(most, running)
            changed.set()
            await gate.wait()
            running -= 1
            return succeed(message)

        service = await self._serve(harness, process, max_concurrency=_AT_A_TIME, slot_patience=0.0)
        if service is None:
            return
        broker, names = CountingBroker(harness), [f"m-{number:02}" for number in range(_AT_A_TIME * _OVERLOAD)]
        for name in names:
            broker.publish(_body(name), name)
        async with asyncio.timeout(harness.patience * 2):
            while broker.pending:
                gate.clear()
                sent = [asyncio.create_task(broker.deliver_one(service, name)) for name in broker.pending]
                for task in sent:
                    task.add_done_callback(lambda _: changed.set())
                while running + sum(task.done() for task in sent) < len(sent):
                    changed.clear()
                    await changed.wait()
                refused = {task.result() for task in sent if task.done()}
                assert refused <= {503}, f"without a free slot the answers were {sorted(refused)}"
                gate.set()
                await asyncio.gather(*sent)
        assert sorted(message.id for message in service.handled) == names
        assert most <= _AT_A_TIME
        assert service.dead_lettered == []
        assert broker.given_up == []

    async def test_58_failing_message_is_dead_lettered_after_its_own_failures(self, harness: PushHarness) -> None:
        """A message is dead-lettered after `max_attempts` failures of the handler, whatever the broker counted."""
        service = await self._serve(harness, _fail)
        if service is None:
            return
        broker = CountingBroker(harness)
        broker.publish(_body("m-1"), "m-1")
        broker.fail_to_connect(RETRY.max_attempts + 2)
        await broker.settle(service)
        attempts = [message.delivery.attempt for message in service.handled if message.delivery]
        assert attempts == list(range(1, RETRY.max_attempts + 1))
        assert [(why.reason, why.attempts) for _, why in service.dead_lettered] == [
            ("attempts_exhausted", RETRY.max_attempts)
        ]
        assert broker.given_up == []

    async def test_58_each_process_counts_for_itself(self, harness: PushHarness) -> None:
        """Each process counts its own failures only."""
        first = await self._serve(harness, _fail)
        if first is None:
            return
        second = await self._serve(harness, _fail)
        assert second is not None
        broker = CountingBroker(harness)
        broker.publish(_body("m-1"), "m-1")
        for service in (first, second, first, second, first):
            if broker.pending:
                await broker.deliver(service)
        assert (len(first.handled), len(second.handled)) == (RETRY.max_attempts, RETRY.max_attempts - 1)
        assert (len(first.dead_lettered), len(second.dead_lettered)) == (1, 0)

    @pytest.mark.parametrize("status", ["SUCCESS", "FAILED"])
    async def test_58_second_request_for_a_message_waits_for_the_same_result(
        self, harness: PushHarness, status: str
    ) -> None:
        """While the handler of a message runs, a second push of it runs no handler and gets the same answer."""
        gate, begun = asyncio.Event(), asyncio.Event()

        async def process(_message: TotoMessage) -> ProcessingResponse:
            begun.set()
            await gate.wait()
            return ProcessingResponse(ProcessingStatus[status])

        service = await self._serve(harness, process)
        if service is None:
            return
        requests = [await harness.genuine(_body("m-1"), message_id="m-1", attempt=attempt) for attempt in (1, 2)]
        async with asyncio.timeout(harness.patience):
            first = asyncio.create_task(service.send(requests[0]))
            await begun.wait()
            accepted = _next_accepted(service.bus)
            second = asyncio.create_task(service.send(requests[1]))
            await accepted.wait()
            other = await service.send(await harness.genuine(b"poison", message_id="m-2"))
            gate.set()
            answers = await asyncio.gather(first, second)
        assert {answer.status_code for answer in answers} == {200 if status == "SUCCESS" else 500}
        assert other.status_code == 200
        assert len(service.handled) == 1


def _next_accepted(bus: MessageBus) -> asyncio.Event:
    """Return an event for the next push that `bus` verifies; from there to its turn nothing is awaited."""
    accepted, accept = asyncio.Event(), bus._accept_push

    async def recorded(pushed: PushRequest) -> PushReply | Sequence[Received]:
        received = await accept(pushed)
        accepted.set()
        return received

    vars(bus).update(_accept_push=recorded)
    return accepted
