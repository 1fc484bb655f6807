"""A message in the SDK's form: attributes to and from SNS and SQS, and the envelope that SNS puts around it.

SQS and SNS carry text, of characters that XML 1.0 allows
(https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from totoms.errors import Unsupported
from totoms.messages import ID_ATTRIBUTE

OURS: Final = "totoms"
"""What the names of attributes begin with that the plugin adds for itself; nobody else sees them."""
MOST_ATTRIBUTES: Final = 10
"""Of one message on SQS."""
_TYPE: Final = "String"
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# JSON may hold these two as they are; SQS may not. Escaped they are the same to who reads it.
_NO_CHARACTERS: Final = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}

Attributes = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Content:
    """What a service published, taken out of what SQS or SNS delivered."""

    body: bytes
    message_id: str
    attributes: Mapping[str, str]


def to_text(body: bytes) -> str:
    """Return a body as SNS and SQS take it.

    Raises:
        Unsupported: It is no text.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Unsupported("AWS carries text; the message is not UTF-8.") from None
    return text.translate(_NO_CHARACTERS) if b"\xef\xbf" in body else text


def to_attributes(attributes: Mapping[str, str]) -> Attributes:
    """Return attributes in the SDK's form. What AWS would refuse is left out: a reader needs none of them."""
    return {
        name: {"DataType": _TYPE, "StringValue": value}
        for name, value in attributes.items()
        if value and not _FORBIDDEN.search(value)
    }


def size_of(text: str, attributes: Attributes) -> int:
    """Return what AWS counts as a message's size, in bytes: the body, and names, types and values of attributes."""
    size = len(text) if text.isascii() else len(text.encode())
    for name, attribute in attributes.items():
        value = attribute.get("StringValue") or attribute.get("BinaryValue") or ""
        size += len(name) + len(attribute["DataType"])
        size += len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode())
    return size


def from_queue(message: Mapping[str, Any], *, raw: bool) -> Content:
    """Take the content out of a message of SQS.

    Args:
        message: As the SDK gives it.
        raw: Whether the body is what was published, or SNS's envelope around it. The subscription says which.
    """
    if not raw:
        found = from_envelope(_parsed(message["Body"]))
        if found is not None:
            return found
        # In no envelope where all are: it is handed on as it is, to be found undecodable.
    given: Attributes = message.get("MessageAttributes") or {}
    attributes = {
        name: attribute["StringValue"]
        for name, attribute in given.items()
        if "StringValue" in attribute and not name.startswith(OURS)
    }
    return Content(_bytes(message["Body"]), attributes.get(ID_ATTRIBUTE) or message["MessageId"], attributes)


def from_envelope(envelope: Any) -> Content | None:
    """Take the content out of SNS's envelope; None where it is none."""
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


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
