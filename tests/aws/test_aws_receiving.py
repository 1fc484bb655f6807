"""Polls of SQS, and what happens to those whose caller has been cancelled."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS, Request
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, publish
from totoms.messages.subscription import Subscription
from totoms_aws.configuration import AWSConfiguration


def is_polling(request: Request) -> bool:
    return request.operation == "ReceiveMessage"


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_poll_that_is_left_is_quiet(
    bus: BusOfTests, subscription: Subscription, faults: FaultyAWS, how: str
) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    polling = faults.rule(matches=is_polling)
    receiving = asyncio.ensure_future(bus._receive(subscription, 10, 20.0))
    while not polling.seen:
        await asyncio.sleep(0.01)
    if how == "stopped":
        await bus._stop_receiving(subscription)
        assert await receiving == []
    else:
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
    await bus.close()
    del receiving
    gc.collect()
    await asyncio.sleep(0)
    assert told == []


async def test_what_a_poll_brings_too_late_is_given_back_as_if_it_had_not_been_delivered(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    polling = faults.rule(matches=is_polling)
    receiving = asyncio.ensure_future(bus._receive(subscription, 10, 20.0))
    while not polling.seen:
        await asyncio.sleep(0.01)
    await bus._stop_receiving(subscription)
    assert await receiving == []
    publish(faulty_aws, topic, "a body", {})  # the poll is still there, and takes it
    await bus.close()
    other = BusOfTests(aws_kit.environment(faulty_aws), {"posts": topic})
    try:
        await other._subscribe(subscription, create=False)
        (received,) = await other._receive(subscription, 1, 20.0)
        assert (received.body, received.attempt) == (b"a body", 1)
        assert await other._ack([received]) == [None]
    finally:
        await other.close()


async def test_many_are_fetched_by_several_polls_and_deleted_ten_at_a_time(
    bus: BusOfTests, subscription: Subscription, topic: str, faults: FaultyAWS, faulty_aws: AWSConfiguration
) -> None:
    for number in range(25):
        publish(faulty_aws, topic, f"body {number}", {})
    came: list[Any] = []
    while len(came) < 25:
        came += await bus._receive(subscription, 25, 20.0)
    deleting = faults.rule(matches=lambda request: request.operation == "DeleteMessageBatch")
    assert await bus._ack(came) == [None] * 25
    assert len(deleting.seen) == 3
    assert sorted(one.body for one in came) == sorted(f"body {number}".encode() for number in range(25))
