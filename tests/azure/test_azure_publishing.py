"""Publishing to Service Bus: concurrent messages share batches, and each has its own result."""

from __future__ import annotations

import asyncio

import pytest

from standins.azure.service_bus.server import ServiceBusStandIn
from support.azure.messages import BusOfTests, Namespace, collect, environment
from totoms.context import new_cid
from totoms.errors import AccessDenied, Closed, InvalidArgument, MessageTooLarge, NotFound, Unavailable
from totoms.messages.message import ID_ATTRIBUTE
from totoms.messages.outgoing import Outgoing
from totoms_azure.messages import publisher


@pytest.fixture(autouse=True)
async def subscribed(namespace: Namespace) -> None:
    await asyncio.to_thread(namespace.server.make_subscription, namespace.topic, "shop-posts")


async def test_messages_published_at_the_same_time_travel_together(namespace: Namespace) -> None:
    bus, before = namespace.bus(), namespace.server.sends
    results = await asyncio.gather(*(bus._publish([namespace.outgoing(b"%d" % number)]) for number in range(500)))
    assert [*results] == [[None]] * 500
    assert namespace.server.sends - before < 10
    assert namespace.bodies() == [b"%d" % number for number in range(500)]


async def test_who_publishes_alone_is_served_at_once(namespace: Namespace) -> None:
    bus, before = namespace.bus(), namespace.server.sends
    for number in range(3):
        assert await bus._publish([namespace.outgoing(b"%d" % number)]) == [None]
    assert namespace.server.sends - before == 3


async def test_batch_of_several_sessions_that_is_refused_goes_one_by_one_and_later_ones_unmixed(
    namespace: Namespace,
) -> None:
    bus = namespace.bus()
    namespace.server.rejects_mixed_sessions = True
    assert await bus._publish([namespace.outgoing(b"%d" % number, f"{number}") for number in range(5)]) == [None] * 5
    before = namespace.server.sends
    later = [namespace.outgoing(b"%d" % number, "one" if number < 10 else "other") for number in range(20)]
    assert await bus._publish(later) == [None] * 20
    assert namespace.server.sends - before == 2
    assert len(namespace.bodies()) == 25


async def test_message_that_is_refused_does_not_fail_its_neighbours(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._publish([namespace.outgoing(b"0")])  # it has learned what the link says it takes
    namespace.server.max_message_size = 5000
    sizes = [10, 20_000, 30]
    results = await bus._publish([namespace.outgoing(b"x" * size) for size in sizes])
    assert [type(result) for result in results] == [type(None), MessageTooLarge, type(None)]
    assert [len(body) for body in namespace.bodies()] == [1, 10, 30]


async def test_message_over_the_size_of_the_link_fails_alone(namespace: Namespace) -> None:
    bus = namespace.bus()
    (alone,) = await bus._publish([namespace.outgoing(b"x" * 300_000)])
    assert isinstance(alone, MessageTooLarge)
    results = await bus._publish([namespace.outgoing(b"x" * size) for size in (300_000, 10, 300_000, 10)])
    too_large = [isinstance(result, MessageTooLarge) for result in results]
    assert too_large == [True, False, True, False]
    assert [len(body) for body in namespace.bodies()] == [10, 10]


@pytest.mark.parametrize("size", [1032, 1052, 1072, 1100, 1136])  # a batch with less room left than its envelope takes
async def test_batch_that_just_fits_is_not_refused(namespace: Namespace, size: int) -> None:
    bus, before = namespace.bus(), namespace.server.sends
    batch = [
        Outgoing(b"x" * size, f"{n:032}", {ID_ATTRIBUTE: f"{n:032}"}, namespace.topic, ordering_key="k" * 128)
        for n in range(260)
    ]
    assert await bus._publish(batch) == [None] * 260
    assert namespace.server.sends - before < 5


async def test_message_that_fits_alone_but_into_no_batch_goes_alone(namespace: Namespace) -> None:
    bus = namespace.bus()
    batch = [namespace.outgoing(b"x" * size) for size in (261_500, 10, 261_500, 10)]
    assert await bus._publish(batch) == [None] * 4
    assert sorted(map(len, namespace.bodies())) == [10, 10, 261_500, 261_500]


async def test_batches_stay_within_the_size_of_the_link(namespace: Namespace) -> None:
    bus, before = namespace.bus(), namespace.server.sends
    assert await bus._publish([namespace.outgoing(b"x" * 100_000) for _ in range(6)]) == [None] * 6
    assert namespace.server.sends - before == 3


async def test_server_that_is_busy_is_tried_again_and_reported(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_PAUSES", (0.0, 0.0))
    bus, before = namespace.bus(), namespace.server.sends
    namespace.server.busy = True
    (error,) = await bus._publish([namespace.outgoing(b"1")])
    assert isinstance(error, Unavailable)
    assert namespace.server.sends - before == 3
    namespace.server.busy = False
    assert await bus._publish([namespace.outgoing(b"1")]) == [None]


async def test_missing_right_to_send_is_reported_once_for_all(namespace: Namespace) -> None:
    bus = namespace.bus()
    namespace.server.denied = {namespace.topic}
    namespace.server.tokens.clear()
    results = await bus._publish([namespace.outgoing(b"%d" % number) for number in range(50)])
    assert {type(result) for result in results} == {AccessDenied}
    assert len(namespace.server.tokens) < 10, "each was sent by itself, over a connection of its own"
    namespace.server.denied = set()
    assert await bus._publish([namespace.outgoing(b"1")]) == [None]


async def test_topic_that_is_missing_is_not_made(namespace: Namespace) -> None:
    bus = namespace.bus()
    missing, nonsense = namespace.outgoing(b"1", topic="no-topic"), namespace.outgoing(b"1", topic="no//topic?")
    results = await bus._publish([missing, namespace.outgoing(b"2"), nonsense])
    assert [type(result) for result in results] == [NotFound, type(None), NotFound]
    assert not namespace.server.admin_requests


async def test_queue_that_is_missing_is_made(namespace: Namespace) -> None:
    bus, queue = namespace.bus(), f"queue-{new_cid()}"
    assert await bus._publish([namespace.outgoing(b"1", queue=queue)]) == [None]
    assert namespace.bodies(queue) == [b"1"]


async def test_queue_that_may_not_be_made_is_named_and_fails_alone(namespace: Namespace) -> None:
    bus, queue = namespace.bus(), f"queue-{new_cid()}"
    namespace.server.admin_denied = True
    denied, published = await bus._publish([namespace.outgoing(b"1", queue=queue), namespace.outgoing(b"2")])
    assert isinstance(denied, AccessDenied)
    assert queue in str(denied)
    assert published is None
    assert namespace.bodies() == [b"2"]


async def test_key_that_is_too_long_is_reported_before_anything_is_sent(namespace: Namespace) -> None:
    bus, before = namespace.bus(), namespace.server.sends
    with pytest.raises(InvalidArgument):
        await bus._publish([namespace.outgoing(b"1"), namespace.outgoing(b"2", "k" * 129)])
    assert namespace.server.sends == before
    assert await bus._publish([namespace.outgoing(b"2", "k" * 128)]) == [None]


async def test_cancelled_publisher_does_not_recall_its_message(namespace: Namespace) -> None:
    bus = namespace.bus()
    await bus._publish([namespace.outgoing(b"0")])
    namespace.server.delay = 0.2
    publishing = [asyncio.create_task(bus._publish([namespace.outgoing(b"%d" % n)])) for n in range(1, 4)]
    before = namespace.server.sends
    await namespace.until(lambda: namespace.server.sends > before, "nothing was sent")
    publishing[1].cancel()
    await asyncio.wait(publishing)
    assert [task.cancelled() for task in publishing] == [False, True, False]
    assert namespace.bodies() == [b"0", b"1", b"2", b"3"]


async def test_close_sends_what_waits(namespace: Namespace) -> None:
    bus = namespace.bus()
    namespace.server.delay = 0.1
    publishing = asyncio.create_task(bus._publish([namespace.outgoing(b"%d" % number) for number in range(20)]))
    await asyncio.sleep(0)
    await bus.close()
    assert await publishing == [None] * 20
    assert len(namespace.bodies()) == 20
    (error,) = await bus._publisher.publish([namespace.outgoing(b"late")])
    assert isinstance(error, Closed)


async def test_connection_that_is_lost_between_two_sends_is_made_anew(namespace: Namespace) -> None:
    bus = namespace.bus()
    for number in range(3):
        assert await bus._publish([namespace.outgoing(b"%d" % number)]) == [None]
        await asyncio.to_thread(namespace.server.kill_connections)
    assert namespace.bodies() == [b"0", b"1", b"2"]


async def test_message_that_is_taken_keeps_its_properties_when_it_goes_one_by_one(namespace: Namespace) -> None:
    bus = namespace.bus()
    namespace.server.rejects_mixed_sessions = True
    outgoing = [namespace.outgoing(b"%d" % number, f"{number}") for number in range(4)]
    assert await bus._publish(outgoing) == [None] * 4
    kept = {
        bytes(message.message_id or b"", "utf-8") if isinstance(message.message_id, str) else message.message_id
        for message in namespace.server.messages(namespace.path)
    }
    assert {one.message_id.encode() for one in outgoing} == kept


# The first loop has ended with its connection open, and nothing can close it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_bus_publishes_on_a_second_event_loop(server: ServiceBusStandIn) -> None:
    topic = f"topic-{new_cid()}"
    server.make_topic(topic)
    server.make_subscription(topic, "shop-posts")
    bus = BusOfTests(environment(server), {"posts": topic})

    async def publish(*, last: bool) -> None:
        async with asyncio.timeout(120):
            message = Namespace(server).outgoing(b"1", topic=topic)
            assert await bus._publish([message]) == [None]
        if last:
            await bus.close()

    asyncio.run(publish(last=False))
    asyncio.run(publish(last=True))
    collect()
    assert len(server.messages(f"{topic}/subscriptions/shop-posts")) == 2
