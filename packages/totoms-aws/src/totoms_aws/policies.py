"""Policies of queues: who may write to them. A topic may write to the queues of its subscriptions."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

_SENDING: Final = {"*", "sqs:*", "sqs:sendmessage"}
_OPERATORS: Final = {"arnequals", "arnlike", "stringequals", "stringlike"}


def lets_send(policy: str, topic_arn: str) -> bool:
    """Tell whether a policy lets SNS write to the queue on behalf of a topic.

    What is looked for is a statement that allows it and names the topic, or a pattern for it, as ``aws:SourceArn``. It
    is not a judge of policies: one that denies it as well is not noticed.
    """
    return any(fnmatch.fnmatchcase(topic_arn, pattern) for pattern in topics_that_send(policy))


def letting_send(policy: str, topic_arn: str, queue_arn: str) -> str:
    """Return the policy with a statement that lets SNS write to the queue on behalf of a topic, and no other.

    All other statements stay; one of ours for the topic that somebody changed is replaced, as their names must differ.
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


def topics_that_send(policy: str) -> Iterator[str]:
    """Return the ARNs, or patterns for them, on whose behalf a policy lets somebody write to the queue."""
    for statement in _listed(_document(policy).get("Statement")):
        if not isinstance(statement, dict) or statement.get("Effect") != "Allow":
            continue
        if not _SENDING & {str(action).lower() for action in _listed(statement.get("Action"))}:
            continue
        for operator, keys in (statement.get("Condition") or {}).items():
            if operator.lower() in _OPERATORS and isinstance(keys, dict):
                for key, values in keys.items():
                    if key.lower() == "aws:sourcearn":
                        yield from map(str, _listed(values))


def _document(policy: str) -> dict[str, Any]:
    try:
        found = json.loads(policy or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
