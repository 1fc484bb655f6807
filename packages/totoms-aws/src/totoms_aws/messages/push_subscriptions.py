"""Pushed subscriptions: a subscription of the service's endpoint to the topic, and two queues.

One queue is for dead letters. The other is for messages that SNS could not push: it tries for an hour at most
(https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html), then a message goes where the
subscription's redrive policy says, and is lost without one
(https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html). Nobody has handled it then, so it is not a dead
letter: the service pulls that queue like any other.

Everything here may block: call it in a thread.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any, Final

from totoms.errors import NotFound, Unsupported
from totoms.plugin import RetryPolicy, Subscription
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.naming import TopicArn, dead_queue_name, is_fifo, queue_name, undelivered_queue_name
from totoms_aws.messages.queues import Queues, redrive_of
from totoms_aws.messages.subscriptions import Source, incomplete, lacking_attributes
from totoms_aws.messages.topics import RAW, Topics, find_subscription, is_confirmed

_MAX_SECONDS: Final = 3600
"""The longest time that SNS allows for all attempts."""
_QUICK: Final = 10
_RISING: Final = 5
_MAX_PAUSE: Final = 60
_MAX_RETRIES: Final = 100
_ENOUGH_SECONDS: Final = 3000
"""Seconds of attempts that are near enough to what SNS allows."""
_REDRIVE: Final = "RedrivePolicy"
_DELIVERY: Final = "DeliveryPolicy"


class PushSubscriptions:
    """Finds and creates the pushed subscriptions of one bus.

    Args:
        topics: The topics.
        queues: The queues.
    """

    def __init__(self, topics: Topics, queues: Queues) -> None:
        self._topics = topics
        self._queues = queues

    def check(self, subscription: Subscription) -> None:
        """Check that all parts are there, and change nothing. The subscription may wait for its confirmation.

        Raises:
            NotFound: Parts are missing; the error lists them.
        """
        arn, url, dead_name = _target(subscription, self._topics)
        missing: list[str] = []
        subscriptions: list[dict[str, str]] = []
        try:
            subscriptions = self._topics.subscriptions_of(subscription.topic, arn)
        except NotFound:
            missing.append(f"the topic {subscription.topic!r}")
        if subscription.dead_letters and self._queues.find(dead_name) is None:
            missing.append(f"the dead-letter queue {dead_name!r}")
        if find_subscription(subscriptions, "https", url) is None:
            missing.append(f"the subscription of {url!r} to the topic {subscription.topic!r}")
        if missing:
            raise incomplete(subscription.name, missing)

    def create(self, subscription: Subscription) -> None:
        """Create what is missing. SNS then sends the endpoint a request to confirm the subscription.

        Raises:
            AccessDenied: Something may not be created.
            NotFound: There is no such topic; topics are not created.
        """
        arn, url, dead_name = _target(subscription, self._topics)
        subscribed = find_subscription(self._topics.subscriptions_of(subscription.topic, arn), "https", url)
        wanted = {RAW: "false", _DELIVERY: delivery_policy(subscription.retry)}
        if subscription.dead_letters:
            undelivered_arn = self._create_queues(subscription, arn, dead_name)
            wanted[_REDRIVE] = json.dumps({"deadLetterTargetArn": undelivered_arn})
        with mapped_errors("the topic", subscription.topic):
            if subscribed is None or not is_confirmed(subscribed):  # this asks for the confirmation again
                self._topics.sns.subscribe(TopicArn=str(arn), Protocol="https", Endpoint=url, Attributes=wanted)
                return
        found = self._topics.attributes_of(subscribed, subscription.name)
        with mapped_errors("the topic", subscription.topic):
            for name, value in wanted.items():
                if not _contains(found.get(name, ""), value):
                    self._topics.sns.set_subscription_attributes(
                        SubscriptionArn=subscribed, AttributeName=name, AttributeValue=value
                    )

    def push_gaps(self, subscription: Subscription, address: str) -> str:
        """Return what the subscription of an address lacks to survive an outage, with the command; "" for nothing."""
        arn = self._topics.resolve(subscription.topic)
        subscriptions = self._topics.subscriptions_of(subscription.topic, arn)
        for protocol in ("https", "http"):
            found = find_subscription(subscriptions, protocol, address)
            if found is not None and is_confirmed(found):
                queue = undelivered_queue_name(queue_name(f"push-{subscription.logical_name}"))
                queue_arn = f"arn:{arn.partition}:sqs:{arn.region}:{arn.account}:{queue}"
                return _gaps(self._topics.attributes_of(found, subscription.name), found, queue_arn)
        return ""

    def find_undelivered(self, subscription: Subscription) -> Source | None:
        """Return the queue with what SNS could not push; None if there is none."""
        for name in (subscription.name, f"push-{subscription.logical_name}"):  # the second if it was made by hand
            queue = self._queues.find(undelivered_queue_name(queue_name(name)))
            dead_name = redrive_of(self._queues.attributes_of(queue))[0].rpartition(":")[2]
            dead = self._queues.find(dead_name) if dead_name else None
            if queue is not None and dead is not None:
                return Source(queue, dead, raw=False)
        return None

    def _create_queues(self, subscription: Subscription, topic: TopicArn, dead_name: str) -> str:
        """Create the two queues where they are missing; return the ARN of the one for undelivered messages."""
        dead_arn = self._queues.attributes_of(self._queues.find_or_create(dead_name))["QueueArn"]
        name = undelivered_queue_name(queue_name(subscription.name))
        queue_arn = f"{dead_arn.rpartition(':')[0]}:{name}"
        queue = self._queues.find(name)
        lacking = lacking_attributes(self._queues.attributes_of(queue), subscription, dead_arn, topic, queue_arn)
        if queue is None:
            self._queues.create(name, lacking)
        elif lacking:
            self._queues.set_attributes(queue, lacking)
        return queue_arn


def delivery_policy(retry: RetryPolicy) -> str:
    """Return the policy with which SNS tries quickly at first, then once a minute, for just under an hour.

    SNS counts every answer that is not 2xx, and every time that it could not connect, so it is not given the number of
    attempts of the service's own policy: the service counts the failures of its handlers itself.

    Args:
        retry: Gives the first pause, in whole seconds up to a minute.
    """
    shortest = max(1, min(math.ceil(retry.min_backoff), _MAX_PAUSE))
    # Counts each rising pause as the longest, so that it stays within the limit whatever SNS's formula is.
    spent = _QUICK * shortest + _RISING * _MAX_PAUSE
    slow = min((_MAX_SECONDS - 10 - spent) // _MAX_PAUSE, _MAX_RETRIES - _QUICK - _RISING)
    policy = {
        "numRetries": _QUICK + _RISING + slow,
        "numMinDelayRetries": _QUICK,
        "numMaxDelayRetries": slow,
        "minDelayTarget": shortest,
        "maxDelayTarget": _MAX_PAUSE,
        "backoffFunction": "exponential",
    }
    return json.dumps({"healthyRetryPolicy": policy})


def _target(subscription: Subscription, topics: Topics) -> tuple[TopicArn, str, str]:
    """Return the topic, the endpoint's address, and the name of the dead-letter queue."""
    arn, url = topics.resolve(subscription.topic), subscription.push_url or ""
    if not url.startswith("https://"):
        raise Unsupported(
            f"Messages of SNS are pushed to https addresses only; SERVICE_BASE_URL gives {url}.",
            resource=subscription.name,
        )
    if is_fifo(arn.name):
        raise Unsupported(
            f"SNS does not push from FIFO topics such as {subscription.topic!r}: pull.", resource=subscription.topic
        )
    return arn, url, dead_queue_name(queue_name(subscription.name))


def _gaps(found: Mapping[str, str], arn: str, queue_arn: str) -> str:
    lacking, commands = [], []
    if not found.get(_REDRIVE):
        lacking.append("has no redrive policy, so messages that SNS cannot deliver are lost")
        commands.append(_command(arn, _REDRIVE, json.dumps({"deadLetterTargetArn": queue_arn})))
    if _seconds(found.get("EffectiveDeliveryPolicy") or found.get(_DELIVERY) or "") < _ENOUGH_SECONDS:
        lacking.append("is given up by SNS after a few minutes")
        commands.append(_command(arn, _DELIVERY, delivery_policy(RetryPolicy())))
    return f"{' and '.join(lacking)}: {' && '.join(commands)}" if lacking else ""


def _command(arn: str, name: str, value: str) -> str:
    command = ["aws", "sns", "set-subscription-attributes", "--subscription-arn", arn]
    return shlex.join([*command, "--attribute-name", name, "--attribute-value", value])


def _seconds(policy: str) -> float:
    """Return about how long a delivery policy makes attempts; SNS's default has three."""
    try:
        found: Any = json.loads(policy or "{}")
        healthy = found.get("healthyRetryPolicy") or found.get("http", {}).get("defaultHealthyRetryPolicy") or {}
        return float(healthy.get("numRetries", 3)) * float(healthy.get("maxDelayTarget", 20))
    except (ValueError, AttributeError, TypeError):
        return 0.0


def _contains(found: str, wanted: str) -> bool:
    """Return whether an attribute has what is wanted. SNS adds defaults to it."""
    try:
        return _includes(json.loads(found), json.loads(wanted))
    except ValueError:
        return found == wanted


def _includes(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_includes(found.get(name), value) for name, value in wanted.items())
    return bool(wanted == found)
