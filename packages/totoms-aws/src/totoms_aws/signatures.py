"""What SNS signs of a message that it pushes, and whether it did.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
"""

from __future__ import annotations

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
_PADDING: Final = PKCS1v15()
_HASHES: Final[Mapping[str, HashAlgorithm]] = {
    "1": SHA1(),  # noqa: S303 - SNS's own choice, and still what topics do unless told otherwise
    "2": SHA256(),
}


def signed_text(message: Mapping[str, Any]) -> bytes | None:
    """Return what SNS signs: names and values, each on a line. None where something is missing, or not a text."""
    kind = message.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        return None
    text = ""
    for name in names:
        value = message.get(name)
        if isinstance(value, str):
            text += f"{name}\n{value}\n"
        elif value is not None or name != "Subject":
            return None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def hash_of(version: Any) -> HashAlgorithm | None:
    """Return what a version of signatures hashes with; None for a version that there is not."""
    return _HASHES.get(version) if isinstance(version, str) else None


def is_signed(text: bytes, signature: str, algorithm: HashAlgorithm, key: RSAPublicKey) -> bool:
    """Tell whether a text is signed, in base64, with the key that belongs to `key`."""
    try:
        key.verify(binascii.a2b_base64(signature, strict_mode=True), text, _PADDING, algorithm)
    except (InvalidSignature, ValueError):  # binascii.Error is one
        return False
    return True
