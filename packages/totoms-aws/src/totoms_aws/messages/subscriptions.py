"""Pulled subscriptions: a queue, its dead-letter queue, and a subscription of the queue to the topic.

Everything here may block: call it in a thread.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from totoms.errors import AccessDenied, NotFound, Unsupported
from totoms.plugin import Backlog, Existing, Subscription, TotoLogger
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.naming import TopicArn, dead_queue_name, is_fifo, queue_name
from totoms_aws.messages.queues import Queue, QueueAttributes, Queues, redrive_of, redrive_policy
from totoms_aws.messages.topics import RAW, Topics, allowing_topic, allows_topic, find_subscription, is_confirmed

EXTRA_RECEIVES: Final = 5
"""Receives beyond the attempts before SQS redrives a message, so that the service dead-letters it first, with the
reason."""
MAX_RECEIVES: Final = 1000
_COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
"""Messages that can be received; and those that are being handled, or wait for another attempt."""


@dataclass(frozen=True, slots=True)
class Source:
    """The queues of a pulled subscription.

    Attributes:
        queue: The queue.
        dead: The queue with its dead letters.
        raw: Whether its messages are as published, not in SNS's envelope.
    """

    queue: Queue
    dead: Queue
    raw: bool


class Subscriptions:
    """Finds and creates the pulled subscriptions of one bus.

    Args:
        topics: The topics.
        queues: The queues.
    """

    def __init__(self, topics: Topics, queues: Queues) -> None:
        self._topics = topics
        self._queues = queues

    def check(self, subscription: Subscription) -> Source:
        """Find all parts of the subscription, and change nothing.

        Raises:
            NotFound: Parts are missing; the error lists them.
        """
        arn, name = self._target(subscription)
        missing: list[str] = []
        subscriptions: list[dict[str, str]] = []
        subscribed = None
        try:
            if arn is not None:
                subscriptions = self._topics.subscriptions_of(subscription.topic, arn)
        except NotFound:
            missing.append(f"the topic {subscription.topic!r}")
        queue, dead_name = self._queues.find(name), dead_queue_name(name)
        if queue is None:
            missing.append(f"the queue {name!r} with its dead-letter queue {dead_name!r}")
        attributes = self._queues.attributes_of(queue)
        dead_arn, receives = redrive_of(attributes)
        dead_name = dead_arn.rpartition(":")[2] or dead_name
        dead = self._queues.find(dead_name) if queue else None
        if queue and not dead_arn:
            missing.append(f"the redrive policy of the queue {name!r}, to a dead-letter queue")
        elif queue and dead is None:
            missing.append(f"the dead-letter queue {dead_name!r}")
        if dead_arn and receives < min(subscription.retry.max_attempts, MAX_RECEIVES):
            missing.append(
                f"attempts: the redrive policy of the queue {name!r} has a maxReceiveCount of {receives}, but the "
                f"service makes {subscription.retry.max_attempts}"
            )
        if arn is not None:
            if queue:
                missing += self._policy_problems(subscription, name, attributes, arn)
            subscribed = find_subscription(subscriptions, "sqs", attributes.get("QueueArn", ""))
            if subscribed is not None and not is_confirmed(subscribed):
                missing.append(f"the confirmation of the subscription of the queue {name!r}")
            elif subscribed is None:
                missing.append(f"the subscription of the queue {name!r} to the topic {subscription.topic!r}")
        if missing:
            raise incomplete(subscription.name, missing)
        assert queue is not None
        assert dead is not None
        return Source(queue, dead, self._topics.is_raw(subscribed, subscription.name))

    def create(self, subscription: Subscription, lease_seconds: float) -> Source:
        """Find the parts of the subscription, and create those that are missing.

        Args:
            subscription: What to pull.
            lease_seconds: The visibility timeout of a queue that is created.

        Raises:
            NotFound: There is no such topic; topics are not created.
        """
        arn, name = self._target(subscription)
        subscriptions = [] if arn is None else self._topics.subscriptions_of(subscription.topic, arn)
        queue = self._queues.find(name)
        before = self._queues.attributes_of(queue)
        dead_arn, _ = redrive_of(before)
        dead = self._queues.find_or_create(dead_arn.rpartition(":")[2] or dead_queue_name(name))
        dead_arn = dead_arn or self._queues.attributes_of(dead)["QueueArn"]
        queue_arn = f"{dead_arn.rpartition(':')[0]}:{name}"
        if queue is None:
            # All at once: a change of a queue takes up to a minute, in which SNS loses what it may not write.
            lacking = lacking_attributes({}, subscription, dead_arn, arn, queue_arn)
            queue = self._queues.create(name, {"VisibilityTimeout": str(math.ceil(lease_seconds)), **lacking})
            before = self._queues.attributes_of(queue)  # another process may have created it
        lacking = lacking_attributes(before, subscription, dead_arn, arn, queue_arn)
        if lacking:
            self._queues.set_attributes(queue, lacking)
        subscribed = find_subscription(subscriptions, "sqs", queue_arn)
        if arn is None or is_confirmed(subscribed):
            return Source(queue, dead, self._topics.is_raw(subscribed, subscription.name))
        with mapped_errors("the topic", subscription.topic):
            answer = self._topics.sns.subscribe(
                TopicArn=str(arn), Protocol="sqs", Endpoint=queue_arn, Attributes={RAW: "true"}
            )
        if not is_confirmed(answer["SubscriptionArn"]):
            raise NotFound(
                f"The subscription of the queue {name!r} to the topic {subscription.topic!r} is not confirmed: "
                "subscribe the queue with its owner's credentials.",
                resource=subscription.name,
            )
        return Source(queue, dead, raw=True)

    def existing(self, subscription: Subscription) -> Existing:
        """Return what SNS and SQS have for a subscription, and change nothing.

        The pull subscription is the service's own queue, subscribed to the topic. A push subscription counts once it
        is confirmed.

        Raises:
            AccessDenied: The error names the right that is missing.
            NotFound: There is no such topic.
        """
        arn = self._topics.resolve(subscription.topic)
        with _naming_rights("sns:ListSubscriptionsByTopic"):
            found = self._topics.subscriptions_of(subscription.topic, arn)
        confirmed = [one for one in found if is_confirmed(one["SubscriptionArn"])]
        push = tuple(one["Endpoint"] for one in confirmed if one["Protocol"] in ("http", "https"))
        # The name that push.py gives subscriptions that the service has not created.
        dead_letters = (f"the queue {dead_queue_name(queue_name(f'push-{subscription.logical_name}'))!r}",) * len(push)
        name = queue_name(subscription.name, fifo=is_fifo(arn.name))
        with _naming_rights("sqs:GetQueueUrl and sqs:GetQueueAttributes"):
            queue = self._queues.find(name)
            attributes = self._queues.attributes_of(queue)
        own = find_subscription(confirmed, "sqs", attributes.get("QueueArn", ""))
        if queue is None or own is None:
            return Existing(push=push, dead_letters=dead_letters)
        delete = f"aws sqs delete-queue --queue-url {shlex.quote(queue.url)}"
        drain = f"aws sns unsubscribe --subscription-arn {own} && {delete}"
        return Existing(pull=True, push=push, drain=drain, dead_letters=dead_letters)

    def backlog(self, subscription: Subscription) -> Backlog:
        """Return how many messages the queue of a subscription has, approximately. SQS does not say how old they are.

        Raises:
            AccessDenied: The error names the right that is missing.
            NotFound: There is no such queue.
        """
        _, name = self._target(subscription)
        with _naming_rights("sqs:GetQueueUrl and sqs:GetQueueAttributes"):
            queue = self._queues.find(name)
            if queue is None:
                raise NotFound(f"There is no queue {name!r}.", resource=subscription.name)
            attributes = self._queues.attributes_of(queue, *_COUNTS)
        return Backlog(sum(int(attributes.get(one, 0)) for one in _COUNTS))

    def _target(self, subscription: Subscription) -> tuple[TopicArn | None, str]:
        """Return the topic, None if there is only a queue, and the queue's name."""
        arn = self._topics.resolve(subscription.topic) if subscription.topic else None
        name = queue_name(subscription.name, fifo=arn is not None and is_fifo(arn.name))
        if subscription.ordered and not is_fifo(name):
            target = subscription.topic or name
            raise Unsupported(
                f"{target!r} keeps no order: that takes a FIFO topic or queue, whose name ends with .fifo.",
                resource=target,
            )
        return arn, name

    def _policy_problems(
        self, subscription: Subscription, name: str, attributes: QueueAttributes, arn: TopicArn
    ) -> list[str]:
        allowed = allows_topic(attributes.get("Policy", ""), str(arn))
        if allowed == "no":
            return [f"the statement in the policy of the queue {name!r} that lets the topic send to it"]
        if allowed == "perhaps":
            TotoLogger.get_instance().log(
                "init",
                f"Cannot tell from its conditions whether the policy of the queue {name!r} lets the topic "
                f"{subscription.topic!r} send to it. If no message arrives, look there first.",
                "WARNING",
            )
        return []


def lacking_attributes(
    before: QueueAttributes, subscription: Subscription, dead_arn: str, topic: TopicArn | None, queue_arn: str
) -> QueueAttributes:
    """Return the attributes that a queue must be given: its redrive policy, and a policy that lets the topic write.

    Args:
        before: The attributes it has.
        subscription: Whose queue it is.
        dead_arn: Where its dead letters go.
        topic: The topic that writes to it; None for none.
        queue_arn: Its ARN.
    """
    lacking: QueueAttributes = {}
    receives = min(subscription.retry.max_attempts + EXTRA_RECEIVES, MAX_RECEIVES)
    if redrive_of(before)[1] < receives:
        lacking["RedrivePolicy"] = redrive_policy(dead_arn, receives)
    policy = before.get("Policy", "")
    if topic is not None and allows_topic(policy, str(topic)) != "yes":
        lacking["Policy"] = allowing_topic(policy, str(topic), queue_arn)
    return lacking


def incomplete(name: str, missing: list[str]) -> NotFound:
    """Return the error that lists the missing parts of a subscription that may not be created."""
    return NotFound(
        f"The subscription {name!r} is not complete, and create_subscriptions is off. Missing: {'; '.join(missing)}.",
        resource=name,
    )


@contextmanager
def _naming_rights(rights: str) -> Iterator[None]:
    try:
        yield
    except AccessDenied as error:
        raise AccessDenied(f"{error.message} It needs {rights}.", resource=error.resource) from error
