"""What a pulled subscription consists of: a queue, its dead-letter queue, and a subscription of the queue to the topic.

Everything here may block: call it in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from totoms.envelope import Subscription
from totoms.errors import NotFound
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import told_as
from totoms_aws.names import TopicArn, dead_queue_name, is_fifo, parse_topic, queue_name
from totoms_aws.policies import lets_send, letting_send, topics_that_send
from totoms_aws.publishing import no_order
from totoms_aws.queues import Attributes, Queues, redrive, redriven_to
from totoms_aws.topics import Topics

_NET: Final = 5
"""Receives beyond the attempts, before SQS itself moves a message: it shall not be quicker than we, who know why."""
_MOST_RECEIVES: Final = 1000
RAW: Final = "RawMessageDelivery"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the messages of a pulled subscription come from.

    Attributes:
        name: The queue.
        url: Its URL.
        dead_name: The queue with its dead letters.
        dead_url: Its URL.
        raw: Whether its messages are as published; else they are in SNS's envelope.
    """

    name: str
    url: str
    dead_name: str
    dead_url: str
    raw: bool

    @property
    def fifo(self) -> bool:
        """Whether it keeps order."""
        return is_fifo(self.name)


class Sources:
    """Finds and makes them.

    Args:
        settings: The region.
        topics: Knows ARNs.
        queues: Knows URLs.
        lease_seconds: For how long a queue hides what was received, unless it is told otherwise.
    """

    def __init__(self, settings: AWSConfiguration, topics: Topics, queues: Queues, lease_seconds: float) -> None:
        self._settings = settings
        self._topics = topics
        self._queues = queues
        self._lease_seconds = lease_seconds

    def find(self, subscription: Subscription) -> Source:
        """Find what the subscription consists of, and change nothing.

        Raises:
            NotFound: It says all that is missing.
        """
        arn, name = self._where(subscription)
        missing: list[str] = []
        subscriptions: list[dict[str, str]] = []
        subscribed = None
        try:
            if arn is not None:
                subscriptions = list(self.subscriptions_of(subscription.topic, arn))
        except NotFound:
            missing.append(f"the topic {subscription.topic!r}")
        url = self._queues.url_of(name)
        dead_name = dead_queue_name(name)
        if url is None:
            missing.append(f"the queue {name!r} with its dead-letter queue {dead_name!r}")
        attributes = self._queues.attributes_of(name, url) if url else {}
        dead_arn, receives = redriven_to(attributes)
        dead_name = dead_arn.rpartition(":")[2] or dead_name
        dead_url = self._queues.url_of(dead_name) if url else None
        if url and not dead_arn:
            missing.append(f"the redrive policy of the queue {name!r}, to a dead-letter queue")
        elif url and dead_url is None:
            missing.append(f"the dead-letter queue {dead_name!r}")
        if dead_arn and receives < min(subscription.retry.max_attempts, _MOST_RECEIVES):
            missing.append(
                f"attempts: the redrive policy of the queue {name!r} has a maxReceiveCount of {receives}, of the "
                f"{subscription.retry.max_attempts} that the service makes"
            )
        if arn is not None:
            if url and not lets_send(attributes.get("Policy", ""), str(arn)):
                missing.append(f"the statement in the policy of the queue {name!r} that lets the topic send to it")
            subscribed = subscribed_as(subscriptions, "sqs", attributes.get("QueueArn", ""))
            if subscribed is not None and not is_confirmed(subscribed):
                missing.append(f"the confirmation of the subscription of the queue {name!r}")
            elif subscribed is None:
                missing.append(f"the subscription of the queue {name!r} to the topic {subscription.topic!r}")
        if missing:
            raise absent(subscription.name, missing)
        assert url is not None
        assert dead_url is not None
        return Source(name, url, dead_name, dead_url, self._is_raw(subscription.name, subscribed))

    def find_or_make(self, subscription: Subscription) -> Source:
        """Find what the subscription consists of; make what is missing.

        Raises:
            NotFound: There is no such topic; that is not ours to make.
        """
        arn, name = self._where(subscription)
        subscriptions = [] if arn is None else list(self.subscriptions_of(subscription.topic, arn))
        url, dead_name = self._queues.url_of(name), dead_queue_name(name)
        before = self._queues.attributes_of(name, url) if url else {}
        dead_arn, _ = redriven_to(before)
        dead_name = dead_arn.rpartition(":")[2] or dead_name
        dead_url = self.make_dead_queue(dead_name)
        dead_arn = dead_arn or self._queues.attributes_of(dead_name, dead_url)["QueueArn"]
        queue_arn = f"{dead_arn.rpartition(':')[0]}:{name}"
        receives = min(subscription.retry.max_attempts + _NET, _MOST_RECEIVES)
        if url is None:
            # With all at once: a change of a queue takes up to a minute, for which SNS would lose what it may not send.
            lacking = _lacking({}, dead_arn, receives, arn, queue_arn)
            url = self._queues.make(name, {"VisibilityTimeout": str(math.ceil(self._lease_seconds)), **lacking})
            before = self._queues.attributes_of(name, url)  # somebody else may have been quicker
        lacking = _lacking(before, dead_arn, receives, arn, queue_arn)
        if lacking:
            self._queues.set_attributes(name, url, lacking)
        subscribed = subscribed_as(subscriptions, "sqs", queue_arn)
        if arn is not None and not is_confirmed(subscribed):
            with told_as("the topic", subscription.topic):
                answer = self.sns.subscribe(
                    TopicArn=str(arn), Protocol="sqs", Endpoint=queue_arn, Attributes={RAW: "true"}
                )
            if not is_confirmed(answer["SubscriptionArn"]):
                raise NotFound(
                    f"The subscription of the queue {name!r} to the topic {subscription.topic!r} waits for its "
                    "confirmation: subscribe the queue with its owner's credentials.",
                    resource=subscription.name,
                )
            return Source(name, url, dead_name, dead_url, raw=True)
        return Source(name, url, dead_name, dead_url, self._is_raw(subscription.name, subscribed))

    def make_dead_queue(self, name: str) -> str:
        """Return the URL of a queue for dead letters."""
        return self._queues.url_of(name) or self._queues.make(name, {})

    @property
    def sns(self) -> Any:
        """The SDK's client."""
        return client("sns", self._settings)

    def subscriptions_of(self, topic: str, arn: TopicArn) -> Iterator[dict[str, str]]:
        """Return all subscriptions of a topic, as the SDK gives them.

        Raises:
            NotFound: There is no such topic.
        """
        with told_as("the topic", topic):
            for page in self.sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=str(arn)):
                yield from page.get("Subscriptions") or ()

    def are_raw(self, attributes: Attributes) -> bool:
        """Tell whether what SNS writes to a queue is as published, by the queue's attributes and its subscriptions."""
        queue_arn = attributes.get("QueueArn", "")
        for topic_arn in topics_that_send(attributes.get("Policy", "")):
            arn = parse_topic(topic_arn)
            if arn is None:
                continue
            try:
                subscribed = subscribed_as(list(self.subscriptions_of(topic_arn, arn)), "sqs", queue_arn)
            except NotFound:
                continue
            if subscribed is not None:
                return self._is_raw(topic_arn, subscribed)
        return True

    def _where(self, subscription: Subscription) -> tuple[TopicArn | None, str]:
        arn = None
        if subscription.topic:  # without one it is a queue
            arn = self._topics.resolve(subscription.topic)
        name = queue_name(subscription.name, fifo=arn is not None and is_fifo(arn.name))
        if subscription.ordered and not is_fifo(name):
            raise no_order(subscription.topic or name)
        return arn, name

    def _is_raw(self, name: str, subscribed: str | None) -> bool:
        if subscribed is None or not is_confirmed(subscribed):  # what is in the queue was written to it directly
            return True
        with told_as("the subscription", name):
            answer = self.sns.get_subscription_attributes(SubscriptionArn=subscribed)
        return str(answer["Attributes"].get(RAW, "false")).lower() == "true"


def _lacking(
    before: Attributes, dead_arn: str, receives: int, topic_arn: TopicArn | None, queue_arn: str
) -> Attributes:
    """Return what a queue's attributes must become."""
    lacking: Attributes = {}
    if redriven_to(before)[1] < receives:
        lacking["RedrivePolicy"] = redrive(dead_arn, receives)
    policy = before.get("Policy", "")
    if topic_arn is not None and not lets_send(policy, str(topic_arn)):
        lacking["Policy"] = letting_send(policy, str(topic_arn), queue_arn)
    return lacking


def subscribed_as(subscriptions: list[dict[str, str]], protocol: str, endpoint: str) -> str | None:
    """Return the ARN, or the word in its place, of the subscription of an endpoint; None where there is none."""
    for one in subscriptions:
        if one["Protocol"] == protocol and endpoint and one["Endpoint"] == endpoint:
            return one["SubscriptionArn"]
    return None


def is_confirmed(subscribed: str | None) -> bool:
    """Tell whether there is a subscription, and SNS delivers to it: of others it gives a word in place of the ARN."""
    return subscribed is not None and subscribed.startswith("arn:")


def absent(name: str, missing: list[str]) -> NotFound:
    """Return the error that says what is missing of a subscription that may not be made."""
    return NotFound(
        f"The subscription {name!r} is not complete, and create_subscriptions is off. Missing: {'; '.join(missing)}.",
        resource=name,
    )
