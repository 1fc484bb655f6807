"""One ministack for each worker; settings and a faulty proxy for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic
from totoms.context import new_cid
from totoms.messages.subscription import Subscription
from totoms_aws.configuration import AWSConfiguration


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AWSConfiguration]:
    """Settings for a ministack."""
    with aws_kit.settings(monkeypatch, aws_kit.server()) as configuration:
        yield configuration


@pytest.fixture
def faults() -> Iterator[FaultyAWS]:
    """What stands before the ministack of `faulty_aws`."""
    with FaultyAWS(aws_kit.server()) as made:
        yield made


@pytest.fixture
def faulty_aws(monkeypatch: pytest.MonkeyPatch, faults: FaultyAWS) -> Iterator[AWSConfiguration]:
    """Settings for a ministack behind `faults`."""
    with aws_kit.settings(monkeypatch, faults.address) as configuration:
        yield configuration


@pytest.fixture
def topic(faulty_aws: AWSConfiguration) -> str:
    """A topic behind `faults`."""
    return make_topic(faulty_aws)


@pytest.fixture
async def bus(faulty_aws: AWSConfiguration, topic: str) -> AsyncIterator[BusOfTests]:
    """A bus that knows it as ``posts``."""
    made = BusOfTests(aws_kit.environment(faulty_aws), {"posts": topic})
    yield made
    await made.close()


@pytest.fixture
async def subscription(bus: BusOfTests, topic: str) -> Subscription:
    """One of the bus to the topic, by pull."""
    made = Subscription(f"blog-{new_cid()[:12]}", topic, "posts")
    await bus._subscribe(made, create=True)
    return made
