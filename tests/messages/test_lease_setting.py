"""`MessageBusConfig(lease=...)`: how long a pulled message is leased. Each cloud has its own tests of this."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.local.bus import BLOG, make_bus, publish, receive
from support.messages.kit import MemoryBus
from totoms import (
    ConfigurationError,
    MessageBusConfig,
    MessageBusTopicConfig,
    TotoEnvironment,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
)
from totoms.local.configuration import LocalConfiguration


def configuration(root: str, lease: float) -> TotoMicroserviceConfiguration:
    return TotoMicroserviceConfiguration(
        service_name="blog",
        environment=TotoEnvironment("local", LocalConfiguration(root=Path(root))),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="posts", secret="posts_topic_name")], lease=lease
        ),
    )


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf"), "long"])
def test_lease_that_is_not_a_number_of_seconds_is_refused_when_declared(lease: Any) -> None:
    with pytest.raises(ConfigurationError, match="lease"):
        MessageBusConfig(lease=lease)


async def test_lease_out_of_range_is_refused_at_start_with_the_range(local_root: str) -> None:
    with pytest.raises(ConfigurationError, match=r"lease is 0\.01 seconds; the local message bus takes 0\.1 or more"):
        await TotoMicroservice.create(configuration(local_root, 0.01))


async def test_lease_in_range_reaches_the_bus(local_root: str) -> None:
    service = await TotoMicroservice.create(configuration(local_root, 3600.0))
    receiver = await service.message_bus._subscribe(BLOG, create=True)
    assert receiver._feed.lease_seconds == 3600.0  # type: ignore[attr-defined]
    await service.message_bus.close()


@pytest.mark.parametrize(
    ("module", "name", "least", "most"),
    [
        ("totoms.local.messages.bus", "LocalMessageBus", 0.1, float("inf")),
        ("totoms_aws.messages.bus", "AWSMessageBus", 1, 43_200),
        ("totoms_gcp.messages.bus", "PubSubMessageBus", 10, 600),
        ("totoms_azure.messages.bus", "AzureMessageBus", 5, 300),
    ],
)
def test_each_backend_has_the_range_of_its_broker(module: str, name: str, least: float, most: float) -> None:
    bus = getattr(import_module(module), name)
    assert bus.lease_range == (least, most)


def test_backend_without_a_lease_that_can_be_set_says_so() -> None:
    bus = MemoryBus(SimpleNamespace(hyperscaler="memory"))
    with pytest.raises(ConfigurationError, match="memory message bus has fixed leases"):
        bus.use_lease(30.0)


async def test_local_lease_is_given_and_renewed_as_long_as_it_was_set(local_root: str) -> None:
    bus = make_bus(local_root)
    bus.use_lease(7200.0)
    receiver = await bus._subscribe(BLOG, create=True)
    await publish(bus, 1)
    (one,) = await receive(bus)
    assert receiver.lease_seconds == 7200.0
    assert await bus._extend([one]) == [None]
    await bus.close()
