"""Publishing to Pub/Sub: limits, refused requests, ordering keys, batches."""

from __future__ import annotations

import asyncio
import time

import pytest
from grpc import StatusCode

from support.gcp.messages import SUBSCRIPTION, Broker
from totoms.context import new_cid
from totoms.errors import BackendError, MessageTooLarge, Unavailable
from totoms.messages.outgoing import Outgoing
from totoms.messages.subscription import Subscription
from totoms_gcp.messages import publisher


async def test_key_can_be_published_to_again_after_an_error(broker: Broker) -> None:
    bus = broker.bus()
    broker.server.faults["Publish"] += [StatusCode.PERMISSION_DENIED]
    failed, *_ = await bus._publish([_outgoing(b"1", "key")])
    assert isinstance(failed, BackendError)
    for number in range(3):
        assert await bus._publish([_outgoing(b"%d" % number, "key")]) == [None]


async def test_what_waits_behind_an_error_of_its_key_fails_too_and_order_is_kept(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(Subscription("shop-posts", "posts-topic", "posts", ordered=True), create=True)
    broker.server.faults["Publish"] += [StatusCode.PERMISSION_DENIED]
    results = await bus._publish([_outgoing(b"%d" % number, "key") for number in range(2500)])
    came = [int(entry.message.data) for entry in broker.entries("shop-posts")]
    assert isinstance(results[0], BackendError)
    assert came == sorted(came)
    assert [number for number, result in enumerate(results) if result is None] == came


async def test_single_message_does_not_wait_for_others(broker: Broker) -> None:
    bus = broker.bus()
    await bus._publish([_outgoing(b"first")])
    took = []
    for _ in range(20):
        began = time.perf_counter()
        assert await bus._publish([_outgoing(b"1")]) == [None]
        took.append(time.perf_counter() - began)
    assert sorted(took)[3] < 0.1  # the client's own default waits for 10 ms; a broken one for ever
    assert broker.server.calls["Publish"] == 21


async def test_messages_published_at_the_same_time_travel_together(broker: Broker) -> None:
    bus = broker.bus()
    await asyncio.gather(*(bus._publish([_outgoing(b"%d" % number)]) for number in range(500)))
    assert broker.server.calls["Publish"] < 100


async def test_publishing_is_retried_within_its_deadline(broker: Broker) -> None:
    broker.server.faults["Publish"] += [StatusCode.UNAVAILABLE] * 3
    assert await broker.bus()._publish([_outgoing(b"1")]) == [None]


async def test_publishing_that_takes_too_long_is_an_error_and_does_not_delay_the_next(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = broker.bus()
    broker.server.delays["Publish"] = 1.0
    monkeypatch.setattr(publisher, "PUBLISH_SECONDS", -0.9)
    slow = await asyncio.gather(*(bus._publish([_outgoing(b"%d" % number)]) for number in range(3)))
    assert [type(error) for (error,) in slow] == [Unavailable] * 3
    assert "may still arrive" in str(slow[0][0])
    monkeypatch.undo()
    broker.server.delays["Publish"] = 0.0
    assert await bus._publish([_outgoing(b"last")]) == [None]


async def test_closing_waits_for_what_is_being_published(broker: Broker) -> None:
    bus = broker.bus()
    await bus._publish([_outgoing(b"first")])
    broker.server.delays["Publish"] = 0.3
    publishing = [asyncio.create_task(bus._publish([_outgoing(b"%d" % number)])) for number in range(20)]
    await asyncio.sleep(0)
    await bus.close()
    assert await asyncio.gather(*publishing) == [[None]] * 20


async def test_batch_with_a_topic_that_is_missing_fails_alone(broker: Broker) -> None:
    bus = broker.bus()
    lost = Outgoing(b"1", new_cid(), {"messageId": "1"}, "missing-topic")
    results = await bus._publish([_outgoing(b"1"), lost, _outgoing(b"2")])
    assert [type(result).__name__ for result in results] == ["NoneType", "NotFound", "NoneType"]


@pytest.mark.parametrize(
    ("attributes", "key", "problem"),
    [
        ({"messageType": "é" * 513}, None, "'messageType' of 1026 bytes"),
        ({"n" * 257: "x"}, None, "name is 257 bytes"),
        ({f"name-{n}": "x" for n in range(101)}, None, "101 attributes"),
        ({}, "k" * 1025, "ordering key of 1025 bytes"),
    ],
)
async def test_message_beyond_pubsubs_limits_is_refused_before_it_is_sent(
    broker: Broker, attributes: dict[str, str], key: str | None, problem: str
) -> None:
    outgoing = Outgoing(b"{}", new_cid(), attributes, broker.topic, ordering_key=key)
    at_the_limit = Outgoing(b"{}", new_cid(), {"n" * 256: "é" * 512}, broker.topic, ordering_key="k" * 1024)
    error, good = await broker.bus()._publish([outgoing, at_the_limit])
    assert isinstance(error, MessageTooLarge)
    assert problem in str(error)
    assert good is None
    assert broker.server.calls["Publish"] == 1


async def test_order_of_a_key_is_kept_around_a_message_that_pubsub_refuses(broker: Broker) -> None:
    bus = broker.bus()
    await bus._subscribe(SUBSCRIPTION, create=True)
    broker.server.refused.add(b"bad")
    bodies = [b"0", b"1", b"bad", b"3", b"4"]
    results = await bus._publish([Outgoing(one, new_cid(), {}, broker.topic, ordering_key="key") for one in bodies])
    assert [result is None for result in results] == [True, True, False, True, True]
    assert [entry.message.data for entry in broker.entries("shop-posts")] == [b"0", b"1", b"3", b"4"]
    assert await bus._publish([Outgoing(b"5", new_cid(), {}, broker.topic, ordering_key="key")]) == [None]


def _outgoing(body: bytes, key: str | None = None) -> Outgoing:
    message_id = new_cid()
    return Outgoing(body, message_id, {"messageId": message_id}, "posts-topic", ordering_key=key)
