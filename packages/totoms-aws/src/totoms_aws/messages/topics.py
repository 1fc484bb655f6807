"""Topics of SNS: their ARNs, and their subscriptions. Everything here may block: call it in a thread."""

from __future__ import annotations

import threading
from typing import Any, Final

from totoms.errors import NotFound, Unsupported
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.naming import TopicArn, is_topic_name, parse_topic
from totoms_aws.messages.policies import topics_that_send

RAW: Final = "RawMessageDelivery"
"""The attribute of a subscription with which SNS delivers what was published, without an envelope."""


class Topics:
    """The topics of one bus. A secret holds a topic's ARN, or its bare name.

    A bare name is a topic of the caller's own account, in the configured region. STS is asked once for the account;
    that needs no permission (https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html), while
    listing topics would. Nothing is created; SNS says whether the topic exists when it is used.

    Args:
        settings: The region.
    """

    def __init__(self, settings: AWSConfiguration) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._account: tuple[str, str] | None = None

    @property
    def sns(self) -> Any:
        """The SDK's client."""
        return client("sns", self._settings)

    def known(self, identifier: str) -> TopicArn | None:
        """Return the ARN without I/O; None if STS has to be asked first.

        Raises:
            NotFound: It is neither an ARN nor a name.
            Unsupported: The topic is in another region.
        """
        arn = parse_topic(identifier)
        if arn is None:
            if not is_topic_name(identifier):  # not quoted: it may be the value of a wrong secret
                raise NotFound("The topic's secret holds neither the ARN of an SNS topic nor the name of one.")
            if self._account is None:
                return None
            partition, account = self._account
            return TopicArn(partition, self._settings.region, account, identifier)
        if arn.region != self._settings.region:
            raise Unsupported(
                f"The topic {identifier!r} is in another region than the service ({self._settings.region}).",
                resource=identifier,
            )
        return arn

    def resolve(self, identifier: str) -> TopicArn:
        """Return the ARN.

        Raises:
            NotFound, Unsupported: See `known`.
            AccessDenied, Unavailable: STS cannot be asked.
        """
        found = self.known(identifier)
        if found is None:
            with self._lock:
                if self._account is None:
                    with mapped_errors("the account of the topic", identifier):
                        caller = client("sts", self._settings).get_caller_identity()
                    self._account = caller["Arn"].split(":")[1], caller["Account"]
            found = self.known(identifier)
        assert found is not None
        return found

    def subscriptions_of(self, topic: str, arn: TopicArn) -> list[dict[str, str]]:
        """Return all subscriptions of a topic, as the SDK gives them.

        Args:
            topic: The topic's name for errors.
            arn: Its ARN.

        Raises:
            NotFound: There is no such topic.
        """
        with mapped_errors("the topic", topic):
            pages = self.sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=str(arn))
            return [one for page in pages for one in page.get("Subscriptions") or ()]

    def attributes_of(self, subscription_arn: str, name: str) -> dict[str, str]:
        """Return the attributes of a subscription. `name` is its name for errors."""
        with mapped_errors("the subscription", name):
            answer = self.sns.get_subscription_attributes(SubscriptionArn=subscription_arn)
        found: dict[str, str] = answer["Attributes"]
        return found

    def is_raw(self, subscription_arn: str | None, name: str) -> bool:
        """Return whether messages of a subscription come as published, not in SNS's envelope."""
        if subscription_arn is None or not is_confirmed(subscription_arn):  # they were written to the queue directly
            return True
        return self.attributes_of(subscription_arn, name).get(RAW, "false").lower() == "true"

    def writes_raw(self, queue_attributes: dict[str, str]) -> bool:
        """Return whether SNS writes to a queue without its envelope, by the queue's policy and its subscriptions."""
        for topic_arn in topics_that_send(queue_attributes.get("Policy", "")):
            arn = parse_topic(topic_arn)
            if arn is None:
                continue
            try:
                subscriptions = self.subscriptions_of(topic_arn, arn)
            except NotFound:
                continue
            found = find_subscription(subscriptions, "sqs", queue_attributes.get("QueueArn", ""))
            if found is not None:
                return self.is_raw(found, topic_arn)
        return True


def find_subscription(subscriptions: list[dict[str, str]], protocol: str, endpoint: str) -> str | None:
    """Return the ARN of the subscription of an endpoint, or SNS's word in its place; None if there is none."""
    for one in subscriptions:
        if one["Protocol"] == protocol and endpoint and one["Endpoint"] == endpoint:
            return one["SubscriptionArn"]
    return None


def is_confirmed(subscription_arn: str | None) -> bool:
    """Return whether SNS delivers to a subscription: for one that is not confirmed it gives a word, not an ARN."""
    return subscription_arn is not None and subscription_arn.startswith("arn:")
