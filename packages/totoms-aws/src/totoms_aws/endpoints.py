"""What a pushed subscription consists of: a subscription of the endpoint to the topic, and a dead-letter queue.

Everything here may block: call it in a thread.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from totoms.envelope import RetryPolicy, Subscription
from totoms.errors import NotFound, Unsupported
from totoms_aws.errors import told_as
from totoms_aws.names import TopicArn, dead_queue_name, is_fifo, queue_name
from totoms_aws.policies import lets_send, letting_send
from totoms_aws.queues import Queues
from totoms_aws.sources import RAW, Sources, absent, is_confirmed, subscribed_as
from totoms_aws.topics import Topics

_LONGEST: Final = 3600
"""Seconds that SNS spends on all attempts, and so the longest pause.
https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html"""
_MOST_RETRIES: Final = 100


class Endpoints:
    """Subscribes the service's push endpoint.

    Args:
        topics: Knows ARNs.
        queues: Knows URLs.
        sources: Makes queues for dead letters.
    """

    def __init__(self, topics: Topics, queues: Queues, sources: Sources) -> None:
        self._topics = topics
        self._queues = queues
        self._sources = sources

    def find(self, subscription: Subscription) -> None:
        """Check that everything is there, and change nothing. A subscription that waits for its confirmation is.

        Raises:
            NotFound: It says all that is missing.
        """
        arn, url, dead_name = self._where(subscription)
        missing: list[str] = []
        try:
            subscriptions = list(self._sources.subscriptions_of(subscription.topic, arn))
        except NotFound:
            missing.append(f"the topic {subscription.topic!r}")
            subscriptions = []
        if self._queues.url_of(dead_name) is None:
            missing.append(f"the dead-letter queue {dead_name!r}")
        if subscribed_as(subscriptions, "https", url) is None:
            missing.append(f"the subscription of {url!r} to the topic {subscription.topic!r}")
        if missing:
            raise absent(subscription.name, missing)

    def find_or_make(self, subscription: Subscription) -> None:
        """Make what is missing. SNS then sends the endpoint a confirmation to be answered.

        Raises:
            NotFound: There is no such topic; that is not ours to make.
        """
        arn, url, dead_name = self._where(subscription)
        subscribed = subscribed_as(list(self._sources.subscriptions_of(subscription.topic, arn)), "https", url)
        dead_url = self._sources.make_dead_queue(dead_name)
        dead = self._queues.attributes_of(dead_name, dead_url)
        if not lets_send(dead.get("Policy", ""), str(arn)):
            policy = letting_send(dead.get("Policy", ""), str(arn), dead["QueueArn"])
            self._queues.set_attributes(dead_name, dead_url, {"Policy": policy})
        wanted = {
            "DeliveryPolicy": delivery_policy(subscription.retry),
            "RedrivePolicy": json.dumps({"deadLetterTargetArn": dead["QueueArn"]}),
        }
        with told_as("the topic", subscription.topic):
            if subscribed is None or not is_confirmed(subscribed):  # anew, it is sent another confirmation
                self._sources.sns.subscribe(
                    TopicArn=str(arn), Protocol="https", Endpoint=url, Attributes={RAW: "false", **wanted}
                )
            else:
                self._update(subscribed, wanted)

    def _update(self, subscribed: str, wanted: dict[str, str]) -> None:
        sns = self._sources.sns
        found = sns.get_subscription_attributes(SubscriptionArn=subscribed)["Attributes"]
        for name, value in {RAW: "false", **wanted}.items():
            if not _same(found.get(name, ""), value):
                sns.set_subscription_attributes(SubscriptionArn=subscribed, AttributeName=name, AttributeValue=value)

    def _where(self, subscription: Subscription) -> tuple[TopicArn, str, str]:
        arn, url = self._topics.resolve(subscription.topic), subscription.push_url or ""
        if not url.startswith("https://"):
            raise Unsupported("SNS pushes to https addresses only, as far as we allow it.", resource=subscription.name)
        if is_fifo(arn.name):
            raise Unsupported(
                f"SNS does not push from FIFO topics, as {subscription.topic!r}: pull.", resource=subscription.topic
            )
        return arn, url, dead_queue_name(queue_name(subscription.name))


def delivery_policy(retry: RetryPolicy) -> str:
    """Return the retry policy as SNS knows it: whole seconds, a hundred retries at most, an hour for all."""
    retries = min(retry.max_attempts - 1, _MOST_RETRIES)
    longest = max(1, min(math.ceil(retry.max_backoff), _LONGEST // max(retries, 1)))
    shortest = max(1, min(math.ceil(retry.min_backoff), longest))
    policy = {"numRetries": retries, "minDelayTarget": shortest, "maxDelayTarget": longest}
    return json.dumps({"healthyRetryPolicy": {**policy, "backoffFunction": "exponential"}})


def _same(found: str, wanted: str) -> bool:
    """Tell whether what is wanted is there: SNS adds what it was not told."""
    try:
        return _within(json.loads(wanted), json.loads(found))
    except ValueError:
        return found == wanted


def _within(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_within(value, found.get(name)) for name, value in wanted.items())
    return bool(wanted == found)
