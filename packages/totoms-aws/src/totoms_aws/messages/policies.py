"""Policies of queues: which topics may write to them."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final, Literal

_SENDING: Final = {"*", "sqs:*", "sqs:sendmessage"}
_OPERATORS: Final = {"arnequals", "arnlike", "stringequals", "stringlike", "stringequalsignorecase"}
_SNS: Final = ("sns.amazonaws.com", "*")
_SET_OPERATORS: Final = ("foranyvalue:", "forallvalues:")


def allows_topic(policy: str, topic_arn: str) -> Literal["yes", "perhaps", "no"]:
    """Return whether a policy lets SNS write to the queue on behalf of a topic.

    A statement that allows it counts if its conditions are about the topic (``aws:SourceArn``) or its account
    (``aws:SourceAccount``), or if it has none. With another condition, such as ``aws:SourceOrgID``, the answer is
    "perhaps", because only AWS can decide. Statements that deny it are ignored.

    How policies are written:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition.html
    """
    best: Literal["perhaps", "no"] = "no"
    for statement in _allowing(policy):
        answer = _conditions_hold(statement, topic_arn)
        if answer == "yes":
            return "yes"
        if answer == "perhaps":
            best = "perhaps"
    return best


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


def topics_that_send(policy: str) -> Iterator[str]:
    """Return the ARNs, or patterns for them, on whose behalf a policy lets SNS write to the queue."""
    for statement in _allowing(policy):
        for operator, key, values in _conditions(statement):
            if operator in _OPERATORS and key == "aws:sourcearn":
                yield from values


def _allowing(policy: str) -> Iterator[dict[str, Any]]:
    """Return the statements that allow SNS to write to the queue, whatever their conditions."""
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
    """Return operator and key, in lower case, and the values of each condition of a statement."""
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
