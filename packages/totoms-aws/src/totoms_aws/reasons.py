"""A dead letter in the SDK's form: the message as it was, and an attribute that says why it is dead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from totoms.envelope import DeadLetter, DeadLetterReason
from totoms_aws.forms import MOST_ATTRIBUTES, OURS, Attributes, from_queue, to_attributes

_REASON: Final = f"{OURS}DeadLetter"
# Attributes with which SNS says why it gave up an endpoint.
# https://docs.aws.amazon.com/sns/latest/dg/sns-configure-dead-letter-queue.html
_ERROR_CODE: Final = "ErrorCode"
_ERROR_MESSAGE: Final = "ErrorMessage"


def with_reason(
    attributes: Attributes, reason: DeadLetterReason, *, message_id: str, raw: bool, group: str
) -> tuple[Attributes, Attributes]:
    """Return the attributes of a letter, and fewer for one that is too large with them.

    Args:
        attributes: Those of the message.
        reason: Why it is dead.
        message_id: Its id, which a copy at SQS does not keep.
        raw: Whether its body is what was published.
        group: Its message group.
    """
    why = {
        "id": message_id, "reason": reason.reason, "errorClass": reason.error_class,
        "description": reason.description, "attempts": reason.attempts, "raw": raw, "group": group,
    }  # fmt: skip
    room = dict(list(attributes.items())[: MOST_ATTRIBUTES - 1])
    short = to_attributes({_REASON: json.dumps({**why, "description": ""})})
    return {**room, **to_attributes({_REASON: json.dumps(why)})}, short


def letter_of(message: Mapping[str, Any], subscription: str, *, raw: bool) -> DeadLetter:
    """Return what a message of a dead-letter queue says.

    Args:
        message: As the SDK gives it.
        subscription: Whose queue it is.
        raw: Whether its body is what was published, if it does not say so itself: then SQS or SNS moved it.
    """
    why = _why(message)
    content = from_queue(message, raw=is_raw(message, raw=raw))
    attributes = {name: value for name, value in content.attributes.items() if name not in _added(why)}
    reason = DeadLetterReason(
        str(why.get("reason", "")), str(why.get("errorClass", "")), str(why.get("description", "")),
        int(why.get("attempts", 0)),
    )  # fmt: skip
    since = int(message["Attributes"]["SentTimestamp"]) / 1000
    return DeadLetter(
        message["MessageId"], str(why.get("id") or content.message_id), subscription, content.body, attributes, reason,
        since,
    )  # fmt: skip


def is_raw(message: Mapping[str, Any], *, raw: bool) -> bool:
    """Tell whether a letter's body is what was published; `raw` where it does not say so itself."""
    return _why(message).get("raw", raw) is True


def group_of(message: Mapping[str, Any]) -> str:
    """Return the message group that a dead letter had in its subscription's queue."""
    return str(_why(message).get("group") or (message.get("Attributes") or {}).get("MessageGroupId", ""))


def _added(why: Mapping[str, Any]) -> tuple[str, ...]:
    return () if "id" in why else ("RequestID", _ERROR_CODE, _ERROR_MESSAGE)


def _why(message: Mapping[str, Any]) -> dict[str, Any]:
    given: Attributes = message.get("MessageAttributes") or {}
    try:
        found = json.loads(given[_REASON]["StringValue"])
        return {**found, "attempts": int(found["attempts"])}
    except (KeyError, ValueError, TypeError):
        pass
    if _ERROR_CODE in given:  # SNS did not get it delivered
        code, text = (str(given.get(name, {}).get("StringValue", "")) for name in (_ERROR_CODE, _ERROR_MESSAGE))
        return {"reason": "attempts_exhausted", "errorClass": code, "description": text}
    return {"reason": "lease_expired"}  # SQS moved it: nobody who received it said anything
