"""The contract of the lifecycle: behaviours 53 to 56, 60 and 65."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from opentelemetry.trace import SpanKind

from totoms import environment as environments
from totoms.context import new_cid
from totoms.environment import scope_environment
from totoms.errors import Closed, ConfigurationError, NotFound
from totoms.messages.bus import MessageBus
from totoms.messages.driver import DEAD_LETTERS, PULL
from totoms.messages.message import MessageDestination, TotoMessage
from totoms.messages.subscription import Subscription
from totoms.secrets.manager import SecretsManager
from totoms.service import TotoMicroservice
from totoms.storage.storage import CloudStorage
from totoms.testing.audit import IO, Recording
from totoms.testing.contract import Contract
from totoms.testing.lifecycle.harness import LifecycleHarness
from totoms.testing.lifecycle.service import (
    JWT_KEY_SECRET,
    ORDERS,
    SIGNING_KEY,
    STAMP_SECRET,
    USER,
    Shop,
    running,
)
from totoms.testing.service.backend import TestBackend
from totoms.testing.spans import recorded_spans


class LifecycleContract(Contract):
    """Whole services start, run and stop on a backend. Provide the fixture ``harness``, a `LifecycleHarness`.

    Declare the capabilities of the message bus. Without PULL a service that pulls must fail to start.
    """

    async def test_53_constructing_does_no_io(self, harness: LifecycleHarness) -> None:
        """Declaring a service and constructing its clients does no I/O and starts no thread."""
        environment, bucket = harness.environment(), await harness.create_bucket()
        topics = {"orders": await harness.create_topic()}
        Shop(environment, bucket).declare()  # warm up: what a first declaration imports is not the backend's I/O
        before = set(threading.enumerate())
        with Recording(IO, this_thread=True) as recording:
            configuration = Shop(environment, bucket).declare()
            with scope_environment(environment):
                configuration.custom_config(environment)
                SecretsManager()
                CloudStorage(bucket)
                bus = MessageBus(None, topics)
        assert recording.seen == [], "constructing did I/O"
        assert not set(threading.enumerate()) - before, "constructing started a thread"
        await bus.close()

    async def test_54_service_is_started_stopped_and_started_again(self, harness: LifecycleHarness) -> None:
        """A stopped service stays stopped; a new one handles what was published meanwhile."""
        shop = await self._shop(harness)
        if shop is None:
            return
        async with running(shop.declare()) as (first, client):
            assert (await client(USER).get("/ready")).status_code == 200
            await _order(client(USER), "a")
            await shop.until({"a"}, harness.patience)
        assert first.state == "stopped"
        await first.stop()
        with pytest.raises(Closed):
            await first.message_bus.publish_message(ORDERS, TotoMessage(type="orderPlaced", id="late"))
        with pytest.raises(Closed):
            await first._lifecycle.start()
        bus = MessageBus(shop.environment, first.message_bus.topics)
        await bus.publish_message(ORDERS, TotoMessage(type="orderPlaced", id="meanwhile", data={"text": "x"}))
        await bus.close()
        async with running(shop.declare()) as (second, client):
            await shop.until({"meanwhile"}, harness.patience)
            await _order(client(USER), "b")
            await shop.until({"b"}, harness.patience)
            assert (await client(USER).get("/shop/orders/a")).json()["content"] == "first stamp: order a"
            assert second.state == "ready"
        assert sorted(message.id for message in shop.handled) == ["a", "b", "meanwhile"]

    async def test_55_services_on_two_backends_do_not_mix(self, harness: LifecycleHarness) -> None:
        """Two services on two backends in one process: each has its own messages, files and secrets."""
        outside = environments._default
        shop = await self._shop(harness)
        if shop is None:
            return
        topic = await SecretsManager(shop.environment).get_secret_async(shop.topic_secret)
        backend = TestBackend({JWT_KEY_SECRET: SIGNING_KEY, STAMP_SECRET: "second stamp", shop.topic_secret: topic})
        try:
            other = Shop(backend.environment, shop.bucket, shop.mark)
            await _check_isolated(shop, other, harness.patience, "first stamp", "second stamp")
        finally:
            await asyncio.to_thread(backend.remove)
        assert environments._default is outside, "a backend changed the environment of the process"

    async def test_55_services_on_one_hyperscaler_do_not_mix(self, harness: LifecycleHarness) -> None:
        """Two environments of one hyperscaler, where there can be two, share no messages and no files."""
        second = harness.second_environment()
        shop = await self._shop(harness)
        if shop is None or second is None:
            return
        await _check_isolated(
            shop, Shop(second, shop.bucket, shop.mark), harness.patience, "first stamp", "first stamp"
        )

    async def test_56_whole_service(self, harness: LifecycleHarness) -> None:
        """A request publishes a message, another service handles it and writes a file with a secret."""
        shop = await self._shop(harness)
        if shop is None:
            return
        front, store = shop.declare("front", handles=False), shop.declare("store")
        async with running(store), running(front) as (service, client):
            order, cid = {"id": "é-1", "text": "Zwei Bücher 📚"}, new_cid()
            assert (await client(None).post("/shop/orders", json=order)).status_code == 401
            answer = await client(USER).post("/shop/orders", json=order, headers={"x-correlation-id": cid})
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-correlation-id"] == cid
            message_id = answer.json()["messageId"]
            assert answer.json() == {"messageId": message_id, "user": USER, "stamp": "first stamp"}
            await shop.until({"é-1"}, harness.patience)
            (message,) = shop.handled
            assert (message.cid, message.type, message.msg) == (cid, "orderPlaced", "An order")
            assert message.data == {"text": "Zwei Bücher 📚"}
            assert message.delivery is not None
            assert (message.delivery.message_id, message.delivery.topic) == (message_id, "orders")
            assert (message.delivery.attempt, message.delivery.subscription) == (1, f"store-{shop.mark}-orders")
            content = await client(USER).get("/shop/orders/é-1")
            assert content.json() == {"content": "first stamp: Zwei Bücher 📚", "stamp": "first stamp"}
            assert (await client(USER).get("/shop/orders/none")).status_code == 404
            assert service.environment == shop.environment
            storage = CloudStorage(shop.bucket, environment=shop.environment)
            assert await storage.list_files_async("orders/") == ["orders/é-1.txt"]

    async def test_60_topic_that_is_only_published_to_gets_no_subscription(self, harness: LifecycleHarness) -> None:
        """A service subscribes to the topics that its handlers name, and to no other."""
        shop = await self._shop(harness)
        if shop is None:
            return
        secret = f"{shop.topic_secret}-receipts"
        await harness.set_secret(secret, await harness.create_topic())
        async with running(shop.declare(published=secret)) as (service, client):
            bus, name = service.message_bus, f"{service.service_name}-receipts"
            await bus.publish_message(MessageDestination(topic="receipts"), TotoMessage(type="receiptPrinted"))
            await _order(client(USER), "a")
            await shop.until({"a"}, harness.patience)
            if DEAD_LETTERS in self.capabilities:
                assert await bus.list_dead_letters(f"{service.service_name}-orders") == []
                with pytest.raises(NotFound):
                    await bus.list_dead_letters(name)
            existing = await bus._existing(Subscription(name, bus.topics["receipts"], "receipts"))
            assert existing is None or not existing.pull, "the service subscribed to a topic that it does not handle"

    async def test_65_one_trace_spans_request_message_and_file(self, harness: LifecycleHarness) -> None:
        """A request, the message that it publishes, its handler and the file that this writes are one trace."""
        shop = await self._shop(harness)
        if shop is None:
            return
        trace_id, caller = new_cid(), new_cid()[:16]
        front, store = shop.declare("front", handles=False), shop.declare("store")
        with recorded_spans() as spans:
            async with running(store), running(front) as (_, client):
                order = {"id": "traced", "text": "x"}
                headers = {"traceparent": f"00-{trace_id}-{caller}-01"}
                assert (await client(USER).post("/shop/orders", json=order, headers=headers)).status_code == 200
                await shop.until({"traced"}, harness.patience)
        published, handled, written = (
            spans.only(name, trace_id) for name in ("publish orders", "process orders", "storage upload")
        )
        assert published.kind is SpanKind.PRODUCER
        assert handled.kind is SpanKind.CONSUMER
        assert spans.parent(published) == caller
        assert spans.parent(handled) == spans.id(published)
        assert [spans.format(link.context.span_id) for link in handled.links] == [spans.id(published)]
        assert spans.parent(written) == spans.id(handled)
        assert spans.only("ack orders", trace_id).kind is SpanKind.CLIENT
        assert handled.attributes["messaging.destination.name"] == "orders"

    async def _shop(self, harness: LifecycleHarness) -> Shop | None:
        """Prepare the backend. Without PULL assert that a service that pulls does not start, and return None."""
        await harness.set_secret(JWT_KEY_SECRET, SIGNING_KEY)
        await harness.set_secret(STAMP_SECRET, "first stamp")
        shop = Shop(harness.environment(), await harness.create_bucket())
        await harness.set_secret(shop.topic_secret, await harness.create_topic())
        if PULL in self.capabilities:
            return shop
        with pytest.raises(ConfigurationError, match="no pull"):
            await TotoMicroservice.create(shop.declare())
        return None


async def _order(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/shop/orders", json={"id": name, "text": f"order {name}"})
    assert answer.status_code == 200, answer.text


async def _check_isolated(one: Shop, other: Shop, patience: float, stamp: str, other_stamp: str) -> None:
    async with running(one.declare()) as (_, client), running(other.declare()) as (_, other_client):
        mine, its = {f"mine-{number}" for number in range(5)}, {f"its-{number}" for number in range(5)}
        await asyncio.gather(
            *(_order(client(USER), name) for name in mine), *(_order(other_client(USER), name) for name in its)
        )
        await asyncio.gather(one.until(mine, patience), other.until(its, patience))
        # Each handles one more message, by which time any stray message has arrived.
        await asyncio.gather(_order(client(USER), "mine-last"), _order(other_client(USER), "its-last"))
        await asyncio.gather(one.until({"mine-last"}, patience), other.until({"its-last"}, patience))
        assert {message.id for message in one.handled} == {*mine, "mine-last"}, "messages of another backend came"
        assert {message.id for message in other.handled} == {*its, "its-last"}, "messages of another backend came"
        for shop, names, called in ((one, mine, stamp), (other, its, other_stamp)):
            storage = CloudStorage(shop.bucket, environment=shop.environment)
            kept = await storage.list_files_async("orders/mine-") + await storage.list_files_async("orders/its-")
            assert set(kept) >= {f"orders/{name}.txt" for name in names}
            assert len(kept) == len(names) + 1, "files of another backend are there"
            name = min(names)
            assert await storage.get_file_content_async(f"orders/{name}.txt") == f"{called}: order {name}"
        answers = await asyncio.gather(
            *(
                made(USER).get(f"/shop/orders/{name}")
                for made, name in ((client, "mine-0"), (other_client, "its-0")) * 5
            )
        )
        assert [answer.json()["stamp"] for answer in answers] == [stamp, other_stamp] * 5
