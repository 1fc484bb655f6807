"""Stopping: acknowledgements that come late count, and the process ends."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from support.faults.oracle import until
from support.gcp.messages import Broker
from support.processes import Process
from totoms.errors import Closed
from totoms.messages.message import TotoMessage, encode_message
from totoms.messages.subscription import Subscription

CONSUMER = Path(__file__).parents[1] / "support/faults/broker_consumer.py"
SUBSCRIPTION = Subscription("shop-posts", "posts-topic", "posts")
NUMBER = 600


@pytest.mark.parametrize("acks_take", [0.0, 0.3, 1.5])
async def test_what_was_handled_before_sigterm_is_settled_and_the_rest_is_still_there(
    broker: Broker, tmp_path: Path, acks_take: float
) -> None:
    await broker.bus()._subscribe(SUBSCRIPTION, create=True)
    broker.server.delays["Acknowledge"] = acks_take
    for number in range(NUMBER):
        body = encode_message(TotoMessage(type="numbered", id=str(number)))
        await asyncio.to_thread(broker.operator.publish, "posts-topic", body, {})
    handled = tmp_path / "handled"
    handled.touch()
    variables = {"HYPERSCALER": "gcp", "GCP_PID": broker.project}
    process = Process(CONSUMER, "posts-topic", str(handled), root=str(tmp_path), env=variables)
    try:
        await asyncio.to_thread(until, lambda: len(_lines(handled)) >= 60, lambda: process.output)
        process.send(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0, process.output
    finally:
        process.kill()
    done, left = _lines(handled), _left(broker)
    assert len(done) == len(set(done)), "a message was handled twice"
    assert set(done) | left == {str(number) for number in range(NUMBER)}, "a message is lost"
    assert not set(done) & left, "an acknowledgement was lost"
    assert left, "the test came too late"
    assert not broker.server.subscriptions[f"projects/{broker.project}/subscriptions/shop-posts-dead"].entries


async def test_nothing_is_to_be_had_of_a_closed_bus(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    receiving = asyncio.create_task(bus._receive(SUBSCRIPTION, 1, 30.0))
    await asyncio.to_thread(until, lambda: broker.server.calls["Pull"] > 1, lambda: "it does not pull")
    await bus.close()
    async with asyncio.timeout(120):
        assert await receiving == []
    with pytest.raises(Closed):
        await bus._receive(SUBSCRIPTION, 1, 1.0)
    with pytest.raises(Closed):
        await bus._subscribe(SUBSCRIPTION, create=False)


async def test_ack_is_sent_although_its_caller_is_cancelled(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    await asyncio.to_thread(broker.operator.publish, "posts-topic", b"1", {})
    received = await bus._receive(SUBSCRIPTION, 1, 10.0)
    broker.server.delays["Acknowledge"] = 0.5
    acking = asyncio.create_task(bus._ack(received))
    await asyncio.to_thread(until, lambda: broker.server.calls["Acknowledge"] == 1, lambda: "it does not ack")
    acking.cancel()
    await asyncio.wait({acking})
    await bus.close()
    assert not broker.server.subscriptions[f"projects/{broker.project}/subscriptions/shop-posts"].entries


async def test_cancelled_receive_leaves_no_pull_behind_after_close(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    receiving = asyncio.create_task(bus._receive(SUBSCRIPTION, 1, 30.0))
    await asyncio.to_thread(until, lambda: broker.server.calls["Pull"] > 1, lambda: "it does not pull")
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    await bus.close()
    names = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not [name for name in names if "pull" in name]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _left(broker: Broker) -> set[str]:
    entries = broker.server.subscriptions[f"projects/{broker.project}/subscriptions/shop-posts"].entries
    return {json.loads(entry.message.data)["id"] for entry in entries}
