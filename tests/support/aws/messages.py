"""What the contract of the message bus needs of SNS and SQS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from botocore.exceptions import ClientError

from standins.aws.errors import FaultyAWS
from support.aws import kit as aws_kit
from support.messages.by_name import ByName
from totoms.context import new_cid
from totoms.errors import Unsupported
from totoms.messages.bus import MessageBus
from totoms.messages.subscription import Subscription
from totoms.testing import MessageBusHarness
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages.bus import AWSMessageBus
from totoms_aws.messages.naming import is_fifo, queue_name

LEASE_SECONDS = 4.0
"""SQS knows whole seconds; a lease is counted from the beginning of a poll, which takes a part of one."""


class BusOfTests(ByName, AWSMessageBus):
    """With leases that end within a test."""

    lease_seconds = LEASE_SECONDS
    undelivered_pause = 0.0


class SNSHarness(MessageBusHarness):
    """Topics and queues of a ministack.

    Args:
        configuration: Its settings.
        faults: What stands before it, and cuts it off in an outage.
        fifo: Whether topics are FIFO topics.
        raw: Whether what SNS writes to queues is as published, or in its envelope: then subscriptions are made first.
    """

    short_lease_seconds = LEASE_SECONDS

    def __init__(self, configuration: AWSConfiguration, faults: FaultyAWS, *, fifo: bool = False) -> None:
        self.configuration = configuration
        self._faults = faults
        faults.longest_poll = 0.2  # of some hundred tests, each would wait for seconds
        self._fifo = fifo
        self._buses: list[AWSMessageBus] = []

    async def create_topic(self) -> str:
        return await asyncio.to_thread(make_topic, self.configuration, fifo=self._fifo)

    async def missing_topic(self) -> str:
        return f"arn:aws:sns:{aws_kit.REGION}:000000000000:missing-{new_cid()}" + (".fifo" if self._fifo else "")

    async def connect(self, topics: Mapping[str, str]) -> MessageBus:
        bus_class = type("LeasingBus", (BusOfTests,), {"lease_seconds": self.lease_seconds})
        made: AWSMessageBus = bus_class(aws_kit.environment(self.configuration), topics)
        self._buses.append(made)
        return made

    async def publish_raw(self, topic: str, body: bytes, attributes: Mapping[str, str]) -> None:
        try:
            await asyncio.to_thread(publish, self.configuration, topic, body.decode(), attributes)
        except (UnicodeDecodeError, ClientError) as error:
            raise Unsupported("SNS does not carry it.") from error

    async def refuse(self, marker: str) -> bool:
        self._faults.rule(matches=lambda request: marker.encode() in request.body, status=400, code="InvalidParameter")
        return True

    async def delete_subscription(self, subscription: Subscription) -> bool:
        def delete() -> None:
            sqs = aws_kit.sdk("sqs", self.configuration)
            name = queue_name(subscription.name, fifo=self._fifo)
            sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])

        await asyncio.to_thread(delete)
        return True

    def outage(self) -> AbstractAsyncContextManager[None]:
        return self._away()

    @contextlib.asynccontextmanager
    async def _away(self) -> AsyncIterator[None]:
        self._faults.away = True
        try:
            yield
        finally:
            self._faults.away = False

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))


def make_topic(configuration: AWSConfiguration, *, fifo: bool = False, name: str = "") -> str:
    """Make a topic; return its ARN."""
    name = name or f"topic-{new_cid()}" + (".fifo" if fifo else "")
    attributes = {"FifoTopic": "true"} if is_fifo(name) else {}
    arn: str = aws_kit.sdk("sns", configuration).create_topic(Name=name, Attributes=attributes)["TopicArn"]
    return arn


def publish(configuration: AWSConfiguration, topic: str, text: str, attributes: Mapping[str, str]) -> None:
    """Publish as a program without totoms does."""
    if not text or any(letter < " " and letter not in "\t\n\r" for letter in text):
        raise Unsupported("SNS does not carry it, though ministack does.")
    order: dict[str, Any] = {}
    if is_fifo(topic):
        order = {"MessageGroupId": new_cid(), "MessageDeduplicationId": new_cid()}
    given = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    aws_kit.sdk("sns", configuration).publish(TopicArn=topic, Message=text, MessageAttributes=given, **order)
