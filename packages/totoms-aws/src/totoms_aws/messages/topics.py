"""Topics of SNS: their ARNs, their subscriptions, and the policies that let them write to a queue.

The methods of `Topics` may block: call them in a thread.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import threading
from collections.abc import Iterator
from typing import Any, Final, Literal

from totoms.errors import NotFound, Unsupported
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.naming import TopicArn, is_topic_name, parse_topic

RAW: Final = "RawMessageDelivery"
"""The attribute of a subscription with which SNS delivers what was published, without an envelope."""
_SENDING: Final = {"*", "sqs:*", "sqs:sendmessage"}
_OPERATORS: Final = {"arnequals", "arnlike", "stringequals", "stringlike", "stringequalsignorecase"}
_SNS: Final = ("sns.amazonaws.com", "*")
_SET_OPERATORS: Final = ("foranyvalue:", "forallvalues:")


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
        for topic_arn in _topics_that_send(queue_attributes.get("Policy", "")):
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
    """Return the ARN of the subscription of an endpoint, or what SNS gives in its place; None if there is none."""
    for one in subscriptions:
        if one["Protocol"] == protocol and endpoint and one["Endpoint"] == endpoint:
            return one["SubscriptionArn"]
    return None


def is_confirmed(subscription_arn: str | None) -> bool:
    """Return whether SNS delivers to a subscription: for an unconfirmed one it gives a word, not an ARN."""
    return subscription_arn is not None and subscription_arn.startswith("arn:")


# --- policies of queues ---


def allows_topic(policy: str, topic_arn: str) -> Literal["yes", "perhaps", "no"]:
    """Return whether a policy lets SNS write to the queue on behalf of a topic.

    A statement that allows it counts if its conditions are about the topic (``aws:SourceArn``) or its account
    (``aws:SourceAccount``), or if it has none. With another condition, such as ``aws:SourceOrgID``, the answer is
    "perhaps", because only AWS can decide. Statements that deny it are ignored.

    How policies are written:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition.html
    """
    answers = {_conditions_hold(statement, topic_arn) for statement in _allowing(policy)}
    return "yes" if "yes" in answers else "perhaps" if "perhaps" in answers else "no"


def allowing_topic(policy: str, topic_arn: str, queue_arn: str) -> str:
    """Return the policy with a statement that lets SNS write to the queue on behalf of this topic only.

    Other statements stay. One that was added for the topic before is replaced: the names of statements must differ.
    """
    document = _document(policy) or {"Version": "2012-10-17", "Statement": []}
    statement = {
        "Sid": f"totoms-{hashlib.sha256(topic_arn.encode()).hexdigest()[:16]}",
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
    }
    others = [
        one
        for one in _listed(document.get("Statement"))
        if not isinstance(one, dict) or one.get("Sid") != statement["Sid"]
    ]
    document["Statement"] = [*others, statement]
    return json.dumps(document)


def _topics_that_send(policy: str) -> Iterator[str]:
    """Yield the ARNs, or patterns of ARNs, of the topics that a policy lets SNS write for."""
    for statement in _allowing(policy):
        for operator, key, values in _conditions(statement):
            if operator in _OPERATORS and key == "aws:sourcearn":
                yield from values


def _allowing(policy: str) -> Iterator[dict[str, Any]]:
    """Yield the statements that allow SNS to write to the queue, whatever their conditions."""
    for statement in _listed(_document(policy).get("Statement")):
        if not isinstance(statement, dict) or statement.get("Effect") != "Allow":
            continue
        principal = statement.get("Principal")
        named = [*principal.values()] if isinstance(principal, dict) else [principal]
        if not any(who in _SNS for each in named for who in _listed(each)):
            continue
        if _SENDING & {str(action).lower() for action in _listed(statement.get("Action"))}:
            yield statement


def _conditions(statement: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield operator and key, in lower case, and the values of each condition of a statement."""
    found = statement.get("Condition")
    for operator, keys in found.items() if isinstance(found, dict) else ():
        plain = str(operator).lower().removesuffix("ifexists")
        for prefix in _SET_OPERATORS:
            plain = plain.removeprefix(prefix)
        for key, values in keys.items() if isinstance(keys, dict) else ():
            yield plain, str(key).lower(), [str(value) for value in _listed(values)]


def _conditions_hold(statement: dict[str, Any], topic_arn: str) -> Literal["yes", "perhaps", "no"]:
    answer: Literal["yes", "perhaps"] = "yes"
    about = {"aws:sourcearn": topic_arn, "aws:sourceaccount": topic_arn.split(":")[4]}
    for operator, key, values in _conditions(statement):
        if operator not in _OPERATORS or key not in about or any("${" in value for value in values):
            answer = "perhaps"
        elif not any(fnmatch.fnmatchcase(about[key], value) for value in values):
            return "no"
    return answer


def _document(policy: str) -> dict[str, Any]:
    try:
        found = json.loads(policy or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
