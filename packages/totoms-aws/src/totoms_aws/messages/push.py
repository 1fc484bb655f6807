"""Messages that SNS pushes to the service's endpoint: verified, and taken out of their envelope.

Only the signed body is trusted. The headers ``x-amz-sns-*`` repeat some of it, and anyone can send them. The body's
``MessageAttributes`` are not signed. The publisher's message id is only in these, so anyone who replays a notification
can change it, and it decides nothing. Messages are recognised, and their attempts counted, by the signed MessageId.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from totoms.errors import Forbidden, NotFound, Unauthorized, Unsupported
from totoms.plugin import (
    TRACEPARENT_ATTRIBUTE,
    PushReply,
    PushRequest,
    Received,
    Subscription,
    TotoLogger,
)
from totoms_aws.clients import SETTLING
from totoms_aws.errors import mapped_errors
from totoms_aws.messages.dead_letters import Pushed
from totoms_aws.messages.encoding import from_envelope
from totoms_aws.messages.naming import TopicArn, parse_topic
from totoms_aws.messages.signatures import (
    CONFIRMATION,
    NOTIFICATION,
    Certificates,
    algorithm_of,
    is_genuine,
    is_signed,
    signed_text,
)
from totoms_aws.messages.topics import Topics

MAX_BYTES: Final = 2 * 1024 * 1024
"""Enough for a message of 256 KiB with every character escaped twice."""
_CLOCK_SKEW: Final = timedelta(minutes=15)
"""The largest difference allowed between SNS's clock and this machine's."""
_MAX_AGE: Final = timedelta(hours=1) + _CLOCK_SKEW
"""SNS tries for an hour at most: https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html"""
_UNSIGNED_ATTRIBUTES: Final = (TRACEPARENT_ATTRIBUTE,)
"""The attributes that are used although they are not signed: a wrong one only misleads a reader of the trace."""


class PushReceiver:
    """Accepts the pushes to one bus.

    Args:
        topics: The topics of the bus.
        identifiers: From the logical names of the service's topics to what their secrets hold.
        certificates: The certificates that SNS signs with.
    """

    def __init__(self, topics: Topics, identifiers: Mapping[str, str], certificates: Certificates) -> None:
        self._topics = topics
        self._identifiers = identifiers
        self._certificates = certificates
        self._subscriptions: dict[str, Subscription] = {}
        self._known: dict[str, tuple[TopicArn, str, str]] = {}

    def add(self, subscription: Subscription) -> None:
        """Use this subscription for the messages of its topic."""
        self._subscriptions[subscription.topic] = subscription

    async def accept(self, request: PushRequest) -> PushReply | list[Received]:
        """Verify a request and return its message, or confirm the subscription that it asks to confirm.

        Raises:
            Unauthorized, Forbidden: It is not from SNS, or not about a topic of this service.
            Undecidable: The certificate cannot be fetched.
            BackendError: SNS does not confirm now, or STS does not say which account a topic's bare name belongs to.
        """
        body = await request.read(verified=False)  # the proof is in it
        message = _parse(body)
        given = message.get("TopicArn")
        if not isinstance(given, str):
            raise Forbidden("The topic is not one of this service's.")
        arn, identifier, logical = self._known.get(given) or await self._topic_of(given)
        await self._verify(message, arn)
        if message["Type"] == CONFIRMATION:
            await SETTLING.run(self._confirm, str(arn), message["Token"])
            TotoLogger.get_instance().log("events", f"The subscription to {arn} is confirmed.")
            return PushReply(body={"status": "confirmed"}, subscribed=logical)
        if message["Type"] != NOTIFICATION:
            TotoLogger.get_instance().log("events", f"SNS has ended this service's subscription to {arn}.", "WARNING")
            return PushReply(body={"status": "ignored"})
        content = from_envelope(message)
        assert content is not None  # all that it needs is signed
        attributes = {name: content.attributes[name] for name in _UNSIGNED_ATTRIBUTES if name in content.attributes}
        return [
            Pushed(
                content.body,
                content.message_id,
                1,
                self._subscriptions.get(identifier)
                or Subscription(f"push-{logical}", identifier, logical, delivery="push"),
                attributes,
                attributes_vouched=False,
                delivery_id=message["MessageId"],
                envelope=body.decode(),
            )
        ]

    async def _topic_of(self, given: str) -> tuple[TopicArn, str, str]:
        arn = parse_topic(given)
        for logical, identifier in self._identifiers.items():
            # A bare name takes a request to STS, so it is sent only for a topic of that name.
            if arn is not None and identifier in (given, arn.name):
                try:
                    if (self._topics.known(identifier) or await SETTLING.run(self._topics.resolve, identifier)) == arn:
                        found = self._known[given] = arn, identifier, logical
                        return found
                except (NotFound, Unsupported):
                    continue
        raise Forbidden("The topic is not one of this service's.")

    async def _verify(self, message: Mapping[str, Any], arn: TopicArn) -> None:
        url, signature = message.get("SigningCertURL"), message.get("Signature")
        if not isinstance(url, str) or not isinstance(signature, str) or not signature:
            raise Unauthorized("The push is not signed.")
        if not is_genuine(url, arn):
            raise Forbidden("The push is not signed by SNS.")
        text, algorithm = signed_text(message), algorithm_of(message.get("SignatureVersion"))
        if text is None or algorithm is None:
            raise Forbidden("The push is not a message of SNS.")
        _check_age(message["Timestamp"])
        key = self._certificates.kept(url) or await self._certificates.key_of(url)
        if not is_signed(text, signature, algorithm, key):
            raise Forbidden("The signature of the push is not SNS's.")

    def _confirm(self, arn: str, token: str) -> None:
        with mapped_errors("the subscription to the topic", arn):
            # Otherwise anyone could unsubscribe with the link that each notification contains.
            self._topics.sns.confirm_subscription(TopicArn=arn, Token=token, AuthenticateOnUnsubscribe="true")


def _parse(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise Forbidden("The push is too large for a message of SNS.")
    try:
        found = orjson.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unauthorized("The push is not a message of SNS.")
    return found


def _check_age(timestamp: str) -> None:
    try:
        sent = datetime.fromisoformat(timestamp)
    except ValueError:
        raise Forbidden("The push does not say when it was sent.") from None
    if sent.tzinfo is None or not -_CLOCK_SKEW <= datetime.now(UTC) - sent <= _MAX_AGE:
        raise Forbidden("The push is too old.")
