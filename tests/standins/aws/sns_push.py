"""SNS, as far as it pushes over HTTPS: messages signed with a certificate of a test's authority, in both versions.

https://docs.aws.amazon.com/sns/latest/dg/http-notification-json.html
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from standins.aws.sns_certificates import CertificateServer

_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_HANDSHAKE = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_HASHES: dict[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}


@dataclass
class Signer:
    """A key with a certificate.

    Attributes:
        path: Where the certificate is.
        pem: The certificate.
    """

    key: rsa.RSAPrivateKey
    pem: bytes
    path: str = field(default_factory=lambda: f"/SimpleNotificationService-{secrets.token_hex(16)}.pem")


def make_signer(
    name: str = "sns.amazonaws.com",
    *,
    since: timedelta = timedelta(days=-1),
    until: timedelta = timedelta(days=90),
    bits: int = 2048,
    alternatives: tuple[str, ...] | None = None,
) -> Signer:
    """Make a key and its certificate.

    Args:
        name: To whom it is made out.
        since, until: When it is valid, from now.
        bits: Of the key.
        alternatives: Further names; by default the same one.
    """
    key = rsa.generate_private_key(65537, bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's authority")]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + since,
        not_valid_after=now + until,
    )
    names = (name,) if alternatives is None else alternatives
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(alternative, critical=False)
    certificate = builder.sign(_authority(), hashes.SHA256())
    return Signer(key, certificate.public_bytes(serialization.Encoding.PEM))


_made: list[rsa.RSAPrivateKey] = []


def _authority() -> rsa.RSAPrivateKey:
    if not _made:
        _made.append(rsa.generate_private_key(65537, 2048))
    return _made[0]


class PushingSNS:
    """Makes the requests that SNS makes for one topic.

    Args:
        topic: Its ARN.
        server: Where the certificate is put.
        signer: With what is signed.
    """

    def __init__(self, topic: str, server: CertificateServer, signer: Signer | None = None) -> None:
        self.topic = topic
        self.signer = signer or make_signer()
        self.url = f"https://{server.host}{self.signer.path}"
        self.subscription = f"{topic}:{uuid.uuid4()}"
        server.pages[self.signer.path] = 200, self.signer.pem

    def notification(
        self, text: str, attributes: Mapping[str, str] | None = None, *, version: str = "1", **fields: Any
    ) -> dict[str, Any]:
        """Return a signed notification; `fields` are set before it is signed, None leaves one out."""
        values = {name: {"Type": "String", "Value": value} for name, value in (attributes or {}).items()}
        return self.signed(
            {
                "Type": "Notification",
                "MessageId": str(uuid.uuid4()),
                "TopicArn": self.topic,
                "Message": text,
                "Timestamp": _timestamp(),
                "UnsubscribeURL": f"https://{self.url.split('/')[2]}/?Action=Unsubscribe",
                **({"MessageAttributes": values} if values else {}),
                **fields,
            },
            version,
        )

    def confirmation(
        self, token: str, *, kind: str = "SubscriptionConfirmation", version: str = "1", **fields: Any
    ) -> dict[str, Any]:
        """Return a signed request to confirm a subscription, or that its end be noticed."""
        return self.signed(
            {
                "Type": kind,
                "MessageId": str(uuid.uuid4()),
                "TopicArn": self.topic,
                "Token": token,
                "Message": "You have chosen to subscribe. To confirm, visit the SubscribeURL.",
                "SubscribeURL": "https://127.0.0.1:1/?Action=ConfirmSubscription",
                "Timestamp": _timestamp(),
                **fields,
            },
            version,
        )

    def signed(self, message: Mapping[str, Any], version: str = "1") -> dict[str, Any]:
        """Sign a message, as it is."""
        made = {name: value for name, value in message.items() if value is not None}
        names = _NOTIFICATION if made.get("Type") == "Notification" else _HANDSHAKE
        text = "".join(f"{name}\n{made[name]}\n" for name in names if name in made)
        signature = self.signer.key.sign(text.encode(), padding.PKCS1v15(), _HASHES.get(version, hashes.SHA256()))
        return {
            **made,
            "SignatureVersion": version,
            "Signature": base64.b64encode(signature).decode(),
            "SigningCertURL": self.url,
        }

    def headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers with which SNS sends a message."""
        return {
            "x-amz-sns-message-type": str(message["Type"]),
            "x-amz-sns-message-id": str(message["MessageId"]),
            "x-amz-sns-topic-arn": str(message["TopicArn"]),
            "x-amz-sns-subscription-arn": self.subscription,
            "content-type": "text/plain; charset=UTF-8",
            "user-agent": "Amazon Simple Notification Service Agent",
        }


def body_of(message: Mapping[str, Any]) -> bytes:
    """Return a message as SNS writes it."""
    return json.dumps(message, indent=2, ensure_ascii=False).encode()


async def deliver(
    send: Callable[[], Awaitable[int]], policy: Mapping[str, Any], *, hurry: float = 1.0
) -> list[int | None]:
    """Deliver a message as SNS does; return the status of each attempt, None for one without an answer.

    Every answer that is not 2xx counts as an attempt, and so does a refused or broken connection. After 4xx other than
    429 SNS does not try again (https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html).

    Args:
        send: Sends once and returns the status; raises OSError or `httpx.TransportError` if there is no answer.
        policy: The ``healthyRetryPolicy`` of the subscription.
        hurry: How many times as fast the pauses pass.
    """
    statuses: list[int | None] = []
    for pause in (0.0, *pauses(policy)):
        await asyncio.sleep(pause / hurry)
        try:
            status: int | None = await send()
        except (OSError, httpx.TransportError):
            status = None
        statuses.append(status)
        if status is not None and status < 500 and status != 429:
            break
    return statuses


def pauses(policy: Mapping[str, Any]) -> list[float]:
    """Return the seconds between the attempts of a delivery policy whose back-off is exponential."""
    shortest, longest = float(policy["minDelayTarget"]), float(policy["maxDelayTarget"])
    quick, slow = int(policy["numMinDelayRetries"]), int(policy["numMaxDelayRetries"])
    rising = int(policy["numRetries"]) - quick - slow
    steps = [shortest * (longest / shortest) ** (step / rising) for step in range(1, rising + 1)]
    return [shortest] * quick + steps + [longest] * slow


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
