"""What SNS pushes to the service's endpoint: verified, and taken out of its envelope.

Nothing but the signed body is believed: the headers ``x-amz-sns-*`` repeat some of it, and anybody can send them. The
body's ``MessageAttributes`` are not signed; of them come the message's id and the trace, and no decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from totoms.envelope import PushReply, PushRequest, Received, Subscription
from totoms.errors import Forbidden, NotFound, Unauthorized, Unsupported
from totoms_aws.certificates import Certificates, is_genuine
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import told_as
from totoms_aws.forms import from_envelope
from totoms_aws.letters import Pushed
from totoms_aws.names import TopicArn, parse_topic
from totoms_aws.signatures import CONFIRMATION, NOTIFICATION, hash_of, is_signed, signed_text
from totoms_aws.topics import Topics
from totoms_aws.workers import SETTLING

_MOST_BYTES: Final = 2 * 1024 * 1024
"""A message of 256 KiB, with everything in it escaped twice, fits."""
_OLDEST: Final = timedelta(hours=6)
"""SNS tries for an hour; what it kept back itself may be older."""
_YOUNGEST: Final = timedelta(minutes=15)
"""How far SNS's clock may be ahead of ours."""


class Pushes:
    """Accepts pushes for one bus.

    Args:
        settings: The region.
        topics: Knows ARNs.
        identifiers: From the logical names of the service's topics to what their secrets hold.
        certificates: Verify what comes.
    """

    def __init__(
        self, settings: AWSConfiguration, topics: Topics, identifiers: Mapping[str, str], certificates: Certificates
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._identifiers = identifiers
        self._certificates = certificates
        self._subscriptions: dict[str, Subscription] = {}
        self._found: dict[str, tuple[TopicArn, str, str]] = {}

    def add(self, subscription: Subscription) -> None:
        """Know a subscription, by its topic, when something of it is pushed."""
        self._subscriptions[subscription.topic] = subscription

    async def accept(self, request: PushRequest) -> PushReply | list[Received]:
        """Verify a request and take out what it brings; confirm a subscription, if that is what it asks for.

        Raises:
            Unauthorized, Forbidden: It is not from SNS, or not about a topic of ours.
            Undecidable: The certificate is out of reach.
            BackendError: SNS does not confirm now, or STS does not say which account a topic's bare name belongs to.
        """
        message = _parse(request.body)
        given = message.get("TopicArn")
        if not isinstance(given, str):
            raise Forbidden("The topic is not one of this service's.")
        arn, identifier, logical = self._found.get(given) or await self._topic_of(given)
        await self._verify(message, arn)
        if message["Type"] == CONFIRMATION:
            await SETTLING.run(self._confirm, str(arn), message["Token"])
            return PushReply(body={"status": "confirmed"})
        if message["Type"] != NOTIFICATION:
            return PushReply(body={"status": "ignored"})
        content = from_envelope(message)
        assert content is not None  # what is signed has all that it takes
        subscription = self._subscriptions.get(identifier) or Subscription(
            f"push-{logical}", identifier, logical, delivery="push"
        )
        held = Pushed(request.body.decode())
        return [Received(content.body, content.message_id, 1, subscription, content.attributes, held)]

    async def _topic_of(self, given: str) -> tuple[TopicArn, str, str]:
        arn = parse_topic(given)
        for logical, identifier in self._identifiers.items():
            # A bare name costs a question to STS: it is asked only for a topic that is called so.
            if arn is not None and identifier in (given, arn.name):
                try:
                    if (self._topics.known(identifier) or await SETTLING.run(self._topics.resolve, identifier)) == arn:
                        found = self._found[given] = arn, identifier, logical
                        return found
                except (NotFound, Unsupported):
                    continue
        raise Forbidden("The topic is not one of this service's.")

    async def _verify(self, message: Mapping[str, Any], arn: TopicArn) -> None:
        url, signature = message.get("SigningCertURL"), message.get("Signature")
        if not isinstance(url, str) or not isinstance(signature, str) or not signature:
            raise Unauthorized("The push is not signed.")
        if not is_genuine(url, arn):
            raise Forbidden("The push is signed by somebody else than SNS.")
        text, algorithm = signed_text(message), hash_of(message.get("SignatureVersion"))
        if text is None or algorithm is None:
            raise Forbidden("The push is no message of SNS.")
        _check_age(message["Timestamp"])
        key = self._certificates.kept(url) or await self._certificates.key_of(url)
        if not is_signed(text, signature, algorithm, key):
            raise Forbidden("The signature of the push is not SNS's.")

    def _confirm(self, arn: str, token: str) -> None:
        with told_as("the subscription to the topic", arn):
            # Then nobody can end the subscription with the link that is in each notification.
            client("sns", self._settings).confirm_subscription(
                TopicArn=arn, Token=token, AuthenticateOnUnsubscribe="true"
            )


def _parse(body: bytes) -> dict[str, Any]:
    if len(body) > _MOST_BYTES:
        raise Forbidden("The push is too large for a message of SNS.")
    try:
        found = orjson.loads(body)
    except ValueError:
        raise Unauthorized("The push is no message of SNS.") from None
    if not isinstance(found, dict):
        raise Unauthorized("The push is no message of SNS.")
    return found


def _check_age(timestamp: str) -> None:
    try:
        sent = datetime.fromisoformat(timestamp)
    except ValueError:
        raise Forbidden("The push does not say when it was sent.") from None
    if sent.tzinfo is None or not -_YOUNGEST <= datetime.now(UTC) - sent <= _OLDEST:
        raise Forbidden("The push is too old.")
