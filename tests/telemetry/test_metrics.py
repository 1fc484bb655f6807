"""The metrics of messages, and that strangers cannot make more of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from support.messages.kit import SUBSCRIPTION, Handler, make_router, succeed
from telemetry.test_spans import POSTS, Bus, delivery
from totoms import TotoMessage
from totoms.errors import Unavailable
from totoms.logging.logger import TotoLogger
from totoms.messages.dead_letter_log import dead_letter
from totoms.telemetry import state
from totoms.testing.spans import recorded_spans

Points = dict[str, list[Any]]


class Metrics:
    """Reads what was recorded."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def points(self, name: str) -> list[Any]:
        """Return the data points of an instrument."""
        data = self._reader.get_metrics_data()
        metrics = [one for found in data.resource_metrics for scope in found.scope_metrics for one in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def values(self, name: str, label: str) -> dict[str, Any]:
        """Return the values of a counter by one label."""
        return {point.attributes.get(label, ""): point.value for point in self.points(name)}


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    reader = InMemoryMetricReader()
    with recorded_spans(MeterProvider([reader], shutdown_on_exit=False)):
        yield Metrics(reader)


async def test_published_messages_are_counted_by_type_and_error(metrics: Metrics) -> None:
    bus = Bus()
    await bus.publish_messages(POSTS, [TotoMessage(type="postCreated"), TotoMessage(type="postHidden")])
    bus.error = Unavailable("The broker is away.")
    with pytest.raises(Unavailable):
        await bus.publish_message(POSTS, TotoMessage(type="postCreated"))
    counted = {
        (point.attributes["totoms.message.type"], point.attributes.get("error.type", "")): point.value
        for point in metrics.points("messaging.client.sent.messages")
    }
    assert counted == {("postCreated", ""): 1, ("postHidden", ""): 1, ("postCreated", "Unavailable"): 1}
    assert sum(point.count for point in metrics.points("messaging.client.operation.duration")) == 2


async def test_handled_messages_are_counted_by_outcome(metrics: Metrics) -> None:
    async def process(message: TotoMessage) -> Any:
        if message.data == {"fail": True}:
            raise RuntimeError("no")
        return succeed(message)

    router = make_router(Handler(process))
    await router.handle(delivery())
    await router.handle(delivery(message_type="unknown"))
    assert metrics.values("totoms.messages.handled", "totoms.message.outcome") == {"ack": 1, "ignored": 1}
    assert [point.value for point in metrics.points("totoms.messages.in_flight")] == [0]
    (duration,) = metrics.points("messaging.process.duration")
    assert duration.count == 2
    assert duration.attributes["messaging.destination.subscription.name"] == SUBSCRIPTION.name


async def test_dead_letters_are_counted_by_reason_once_they_are_stored(metrics: Metrics) -> None:
    async def refuse(*_: object) -> str | None:
        raise Unavailable("The broker is away.")

    async def keep(*_: object) -> str | None:
        return None

    received = delivery()
    received.body = b"not JSON"
    outcome = await make_router(Handler(succeed)).handle(received)
    await dead_letter(refuse, received, outcome, TotoLogger("blog"), "local")
    assert metrics.points("totoms.messages.dead_lettered") == []
    await dead_letter(keep, received, outcome, TotoLogger("blog"), "local")
    assert metrics.values("totoms.messages.dead_lettered", "totoms.dead_letter.reason") == {"undecodable": 1}


async def test_unknown_message_types_are_not_used_as_labels(metrics: Metrics) -> None:
    router = make_router(Handler(succeed))
    for number in range(300):
        await router.handle(delivery(message_type=f"invented{number}"))
    await router.handle(delivery())
    assert metrics.values("totoms.messages.handled", "totoms.message.type") == {"other": 300, "postCreated": 1}


async def test_types_that_are_published_are_bounded(metrics: Metrics) -> None:
    bus = Bus()
    for number in range(300):
        await bus.publish_message(POSTS, TotoMessage(type=f"made{number}"))
    counted = metrics.values("messaging.client.sent.messages", "totoms.message.type")
    assert len(counted) == 201
    assert counted["other"] == 100


async def test_queues_named_from_data_do_not_make_labels_without_end(metrics: Metrics) -> None:
    instruments = state.active.instruments  # type: ignore[union-attr]
    for number in range(300):
        instruments.published("local", f"reply-{number}", [], [], 0.1, "")
    assert len(metrics.points("messaging.client.operation.duration")) == 201


async def test_labels_hold_no_ids(metrics: Metrics) -> None:
    await Bus().publish_message(POSTS, TotoMessage(type="postCreated", cid="cid-of-a-user"))
    await make_router(Handler(succeed)).handle(delivery())
    for name in ("messaging.client.sent.messages", "totoms.messages.handled", "messaging.process.duration"):
        for point in metrics.points(name):
            assert not {"cid-of-a-user", "c-1", "m-1"} & set(map(str, point.attributes.values()))
