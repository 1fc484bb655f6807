"""What SNS signs of a message that it pushes, and whether it did.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

NOTIFICATION: Final = "Notification"
CONFIRMATION: Final = "SubscriptionConfirmation"
GOODBYE: Final = "UnsubscribeConfirmation"

_HANDSHAKE: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    CONFIRMATION: _HANDSHAKE,
    GOODBYE: _HANDSHAKE,
}
_HASHES: Final[Mapping[str, HashAlgorithm]] = {
    "1": SHA1(),  # noqa: S303 - SNS's own choice, and still what topics do unless told otherwise
    "2": SHA256(),
}


def signed_text(message: Mapping[str, Any]) -> bytes | None:
    """Return what SNS signs: names and values, each on a line. None where something is missing, or not a text."""
    lines: list[str] = []
    kind = message.get("Type")
    for name in _SIGNED.get(kind, ("Type",)) if isinstance(kind, str) else ("Type",):
        value = message.get(name)
        if value is None and name == "Subject":
            continue
        if not isinstance(value, str):
            return None
        lines += (name, value)
    if kind not in _SIGNED:
        return None
    try:
        return "".join(f"{line}\n" for line in lines).encode()
    except UnicodeEncodeError:
        return None


def is_signed(text: bytes, message: Mapping[str, Any], key: RSAPublicKey) -> bool:
    """Tell whether a message, of which `text` is to be signed, is signed with the key that belongs to `key`."""
    signature, version = message.get("Signature"), message.get("SignatureVersion")
    algorithm = _HASHES.get(version) if isinstance(version, str) else None
    if not isinstance(signature, str) or algorithm is None:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), text, PKCS1v15(), algorithm)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def is_known_version(version: Any) -> bool:
    """Tell whether it is a version of signatures that there is."""
    return isinstance(version, str) and version in _HASHES
