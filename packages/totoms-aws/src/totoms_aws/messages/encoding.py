"""Messages and dead letters as SNS and SQS carry them.

Both carry text, of characters that XML 1.0 allows
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from totoms.errors import Unsupported
from totoms.plugin import ID_ATTRIBUTE, DeadLetter, DeadLetterReason

PREFIX: Final = "totoms"
"""Begins the names of attributes that this package adds. Handlers do not see these."""
MAX_ATTRIBUTES: Final = 10
"""Attributes of one message on SQS."""
_DEAD_LETTER: Final = f"{PREFIX}DeadLetter"
# The attributes with which SNS says why it could not push a message.
# https://docs.aws.amazon.com/sns/latest/dg/sns-configure-dead-letter-queue.html
_ERROR_CODE: Final = "ErrorCode"
_ERROR_MESSAGE: Final = "ErrorMessage"
# All but \t, \n, \r, \x20-\ud7ff, \ue000-\ufffd and \U00010000-\U0010ffff. As a negated class it takes 8 ms to compile.
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# JSON may contain these two, SQS may not. Escaped, they mean the same to a reader of JSON.
_NONCHARACTERS: Final = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}

Attributes = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Content:
    """A published message, extracted from what SQS or SNS delivered."""

    body: bytes
    message_id: str
    attributes: Mapping[str, str]


def to_text(body: bytes) -> str:
    """Return a body as SNS and SQS take it.

    Raises:
        Unsupported: It is not UTF-8.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Unsupported("AWS carries text; the message is not UTF-8.") from None
    return text.translate(_NONCHARACTERS) if b"\xef\xbf" in body else text


def to_attributes(attributes: Mapping[str, str]) -> Attributes:
    """Return attributes in the SDK's form, without those that AWS would refuse: no reader needs them."""
    return {
        name: {"DataType": "String", "StringValue": value}
        for name, value in attributes.items()
        if value and not _FORBIDDEN.search(value)
    }


def without_ours(message: Mapping[str, Any]) -> Attributes:
    """Return the attributes of a message of SQS, in the SDK's form, without those that this package added."""
    given: Attributes = message.get("MessageAttributes") or {}
    return {name: value for name, value in given.items() if not name.startswith(PREFIX)}


def with_message_id(attributes: Attributes, message_id: str) -> Attributes:
    """Return attributes with the message's id, where there is room: SQS gives a copy another id."""
    if ID_ATTRIBUTE in attributes or len(attributes) >= MAX_ATTRIBUTES:
        return attributes
    return {**attributes, **to_attributes({ID_ATTRIBUTE: message_id})}


def size_of(text: str, attributes: Attributes) -> int:
    """Return a message's size as AWS counts it, in bytes: the body, and names, types and values of attributes."""
    size = len(text) if text.isascii() else len(text.encode())
    for name, attribute in attributes.items():
        value = attribute.get("StringValue") or attribute.get("BinaryValue") or ""
        size += len(name) + len(attribute["DataType"])
        size += len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode())
    return size


def from_queue(message: Mapping[str, Any], *, raw: bool) -> Content:
    """Return the content of a message of SQS.

    Args:
        message: As the SDK gives it.
        raw: Whether the body is what was published, or SNS's envelope around it. The subscription decides which.
    """
    if not raw:
        found = from_envelope(_parsed(message["Body"]))
        if found is not None:
            return found
        # Without the envelope that all others have. The core finds out whether it can be decoded.
    attributes = {
        name: attribute["StringValue"]
        for name, attribute in without_ours(message).items()
        if "StringValue" in attribute
    }
    return Content(_bytes(message["Body"]), attributes.get(ID_ATTRIBUTE) or message["MessageId"], attributes)


def from_envelope(envelope: Any) -> Content | None:
    """Return the content of SNS's envelope; None if it is not one."""
    if not isinstance(envelope, dict) or envelope.get("Type") != "Notification":
        return None
    text, message_id, given = envelope.get("Message"), envelope.get("MessageId"), envelope.get("MessageAttributes")
    if not isinstance(text, str) or not isinstance(message_id, str):
        return None
    attributes = {
        name: attribute["Value"]
        for name, attribute in (given if isinstance(given, dict) else {}).items()
        if isinstance(attribute, dict) and attribute.get("Type") != "Binary" and isinstance(attribute.get("Value"), str)
    }
    return Content(_bytes(text), attributes.get(ID_ATTRIBUTE) or message_id, attributes)


# --- dead letters: the message as it was, and an attribute with the reason ---


def with_reason(
    attributes: Attributes, reason: DeadLetterReason, *, message_id: str, raw: bool, group: str
) -> tuple[Attributes, Attributes]:
    """Return the attributes of a dead letter, and fewer for a letter that is too large with them.

    Args:
        attributes: Those of the message.
        reason: Why it is dead.
        message_id: Its id: SQS gives the copy another one.
        raw: Whether its body is what was published.
        group: Its message group.
    """
    why = {
        "id": message_id,
        "reason": reason.reason,
        "errorClass": reason.error_class,
        "description": reason.description,
        "attempts": reason.attempts,
        "raw": raw,
        "group": group,
    }
    kept = dict(list(attributes.items())[: MAX_ATTRIBUTES - 1])
    short = to_attributes({_DEAD_LETTER: json.dumps({**why, "description": ""})})
    return {**kept, **to_attributes({_DEAD_LETTER: json.dumps(why)})}, short


def to_dead_letter(message: Mapping[str, Any], subscription: str, *, raw: bool) -> DeadLetter:
    """Return the dead letter in a message of a dead-letter queue.

    Args:
        message: As the SDK gives it.
        subscription: The name of its subscription.
        raw: Whether the body of a message that SQS or SNS moved there is what was published.
    """
    why = _why(message)
    content = from_queue(message, raw=_is_raw(message, raw=raw))
    added = () if "id" in why else ("RequestID", _ERROR_CODE, _ERROR_MESSAGE)
    return DeadLetter(
        message["MessageId"],
        str(why.get("id") or content.message_id),
        subscription,
        content.body,
        {name: value for name, value in content.attributes.items() if name not in added},
        DeadLetterReason(
            str(why.get("reason", "")),
            str(why.get("errorClass", "")),
            str(why.get("description", "")),
            int(why.get("attempts", 0)),
        ),
        int(message["Attributes"]["SentTimestamp"]) / 1000,
    )


def replayed_entry(message: Mapping[str, Any], letter: DeadLetter, *, raw: bool, fifo: bool) -> dict[str, Any]:
    """Return the entry of ``SendMessageBatch`` that puts a dead letter into its subscription's queue again.

    Args:
        message: As the SDK gives it.
        letter: The dead letter in it.
        raw: Whether SNS writes to that queue without its envelope.
        fifo: Whether that queue keeps order.
    """
    text, attributes = str(message["Body"]), without_ours(message)
    if raw and not _is_raw(message, raw=raw):  # it came in an envelope, which is no longer used
        text, attributes = letter.body.decode("utf-8", "surrogatepass"), to_attributes(letter.attributes)
    if raw:
        attributes = with_message_id(attributes, letter.message_id)
    entry = {"MessageBody": text, "MessageAttributes": attributes}
    if fifo:
        group = str(_why(message).get("group") or (message.get("Attributes") or {}).get("MessageGroupId", ""))
        return {**entry, "MessageGroupId": group, "MessageDeduplicationId": f"replay-{letter.letter_id}"}
    return {**entry, "DelaySeconds": 0}  # not the queue's own delay


def _is_raw(message: Mapping[str, Any], *, raw: bool) -> bool:
    """Return whether a dead letter's body is what was published; `raw` if SQS or SNS moved it."""
    return _why(message).get("raw", raw) is True


def _why(message: Mapping[str, Any]) -> dict[str, Any]:
    given: Attributes = message.get("MessageAttributes") or {}
    try:
        found = json.loads(given[_DEAD_LETTER]["StringValue"])
        return {**found, "attempts": int(found["attempts"])}
    except (KeyError, ValueError, TypeError):
        pass
    if _ERROR_CODE in given:  # SNS could not deliver it
        code, text = (str(given.get(name, {}).get("StringValue", "")) for name in (_ERROR_CODE, _ERROR_MESSAGE))
        return {"reason": "undelivered", "errorClass": code, "description": text}
    return {"reason": "lease_expired"}  # SQS moved it, so no consumer gave a reason


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
