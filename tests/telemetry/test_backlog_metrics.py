"""The gauges of backlogs: read in the background, and missing while they cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from support.http.app import Log
from totoms import (
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    TotoControllerConfig,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    toto_handler,
)
from totoms.errors import AccessDenied
from totoms.local.messages.bus import LocalMessageBus
from totoms.local.messages.receiver import LocalReceiver
from totoms.logging.logger import TotoLogger
from totoms.messages.backlog_watch import BacklogWatch
from totoms.messages.bus import MessageBus
from totoms.messages.subscription import Backlog, Subscription
from totoms.telemetry.service_metrics import ServiceInstruments
from totoms.testing.spans import recorded_spans

ORDERS = Subscription(name="shop-orders", topic="arn:orders", logical_name="orders")


class Broker:
    """Answers each question with what the test says, once the test says it."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[Backlog | Exception | None] = asyncio.Queue(1)
        self._asked = asyncio.Event()

    async def _backlog(self, subscription: Subscription) -> Backlog | None:
        self._asked.set()
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def says(self, answer: Backlog | Exception | None) -> None:
        """Answer, and wait until it was taken in: until the next question."""
        await self._asked.wait()
        self._asked.clear()
        await self._answers.put(answer)
        await self._asked.wait()


class Gauges:
    """What the gauges show."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.instruments = ServiceInstruments(MeterProvider([self._reader]).get_meter("test"))

    def shown(self) -> dict[str, float]:
        data = self._reader.get_metrics_data()
        found: dict[str, float] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            for point in cast(Any, metric.data.data_points):
                assert dict(point.attributes) == {
                    "messaging.destination.name": "orders",
                    "messaging.destination.subscription.name": "shop-orders",
                }
                found[metric.name.removeprefix("totoms.subscription.")] = point.value
        return found


@pytest.fixture
def gauges() -> Gauges:
    return Gauges()


@pytest.fixture
async def broker(gauges: Gauges) -> AsyncIterator[Broker]:
    broker = Broker()
    watch = BacklogWatch(cast(MessageBus, broker), TotoLogger("test"), interval=0.0)
    watch.start([ORDERS], gauges.instruments)
    yield broker
    await watch.stop()
    assert gauges.shown() == {}


async def test_backlog_and_age_are_shown_as_the_broker_says_them(broker: Broker, gauges: Gauges) -> None:
    await broker.says(Backlog(7, 12.5))
    assert gauges.shown() == {"backlog": 7, "oldest_age": 12.5}
    await broker.says(Backlog(0))
    assert gauges.shown() == {"backlog": 0}


async def test_broker_that_does_not_say_has_no_gauge(broker: Broker, gauges: Gauges) -> None:
    await broker.says(Backlog(7))
    await broker.says(None)
    assert gauges.shown() == {}


async def test_failure_is_logged_once_and_no_old_number_is_shown(broker: Broker, gauges: Gauges) -> None:
    with Log().collecting() as log:
        await broker.says(Backlog(7, 12.5))
        for _ in range(3):
            await broker.says(AccessDenied("The service may not read the queue.", resource="shop-orders"))
        assert gauges.shown() == {}
        await broker.says(Backlog(8))
        assert gauges.shown() == {"backlog": 8}
        await broker.says(OSError("away"))
    lines = [line for line in log.lines if "backlog of shop-orders" in line]
    assert len(lines) == 2
    assert "The service may not read the queue." in lines[0]


@toto_handler(type="placed")
async def handle(message: TotoMessage, exec_context: ExecutionContext[TotoControllerConfig]) -> None:
    """Do nothing."""


async def test_backlog_of_a_pushed_subscription_is_asked_for_as_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def undelivered(self: LocalMessageBus, subscription: Subscription) -> LocalReceiver:
        # As on AWS: a queue of what could not be pushed, which is pulled. It is not the subscription.
        return await self._subscribe(replace(subscription, delivery="pull"), create=True)

    asked: list[str] = []

    def start(_self: BacklogWatch, subscriptions: Sequence[Subscription], _instruments: object) -> None:
        asked.extend(one.delivery for one in subscriptions)

    monkeypatch.setattr(LocalMessageBus, "_undelivered", undelivered)
    monkeypatch.setattr(BacklogWatch, "start", start)
    monkeypatch.setenv("SERVICE_BASE_URL", "http://127.0.0.1:1")
    bus = MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="orders", secret="orders")],
        message_handlers=[MessageBusHandlerConfig(handler=handle)],
        delivery="push",
    )
    configuration = TotoMicroserviceConfiguration(service_name="shop", message_bus_configuration=bus)
    with recorded_spans():
        service = await TotoMicroservice.create(configuration)
        await service._lifecycle.start()
        await service.stop()
    assert asked == ["push"]
