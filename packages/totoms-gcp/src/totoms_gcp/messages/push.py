"""Push requests: verified by their OIDC token, and decoded, wrapped or not.

See https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions and
https://cloud.google.com/pubsub/docs/payload-unwrapping.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from totoms.errors import Forbidden, Unauthorized
from totoms.plugin import (
    CONTENT_TYPE_ATTRIBUTE,
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    OIDCTokens,
    PushRequest,
    Received,
    Subscription,
    parse_token,
)
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages.naming import REPLAY, companion
from totoms_gcp.messages.subscriptions import Subscriptions

_METADATA: Final = "x-goog-pubsub-"
_ATTRIBUTES: Final = (TYPE_ATTRIBUTE, ID_ATTRIBUTE, TRACEPARENT_ATTRIBUTE, CONTENT_TYPE_ATTRIBUTE)


class PushReceiver:
    """Accepts what is pushed to a service.

    Args:
        settings: The account that Pub/Sub pushes as, and the audience of its tokens.
        topics: The topics of the service: from logical name to the provider's.
        subscriptions: Looks up subscriptions that the service did not create.
        keys_uri: Where Google publishes its keys.
    """

    def __init__(
        self, settings: GCPConfiguration, topics: Mapping[str, str], subscriptions: Subscriptions, keys_uri: str
    ) -> None:
        self._account = settings.push_service_account
        self._audience = settings.push_audience
        self._topics = topics
        self._subscriptions = subscriptions
        self._keys_uri = keys_uri
        self._tokens: dict[str, OIDCTokens] = {}
        self._subscribed: dict[str, Subscription] = {}
        self._looked_up: dict[str, Subscription] = {}

    def add(self, subscription: Subscription) -> None:
        """Accept pushes of a subscription, and of what is replayed to it, from now on."""
        path = self._subscriptions.path(subscription.name)
        self._subscribed[path] = self._subscribed[companion(path, REPLAY).subscription] = subscription

    async def accept(self, request: PushRequest) -> Received:
        """Return the message of a request.

        Raises:
            Unauthorized, Forbidden: It does not come from Pub/Sub, or is not for this service.
            Undecidable: Google's keys cannot be fetched.
        """
        # All subscriptions of a service push to one address, so the token is verified before it is known which it is.
        subscribed = next(iter(self._subscribed.values()), None)
        await self._verify(request, subscribed.push_url or "" if subscribed else "")
        body = await request.read(verified=True)
        path, envelope = _envelope(request, body)
        subscription = self._subscribed.get(path) or self._looked_up.get(path)
        if subscription is None and not path and len(set(self._subscribed.values())) == 1:
            subscription = subscribed  # unwrapped, without metadata; or malformed, which is dead-lettered
        if subscription is None:
            subscription = self._looked_up[path] = await self._look_up(path)
        if envelope is None:
            return _decode_unwrapped(request, body, subscription)
        return _decode_wrapped(envelope, body, subscription)

    async def _verify(self, request: PushRequest, url: str) -> None:
        """Verify the token. Nothing is fetched for a forgery except, seldom, Google's keys."""
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("The push has no token.")
        token = parse_token(credentials.strip().encode("utf-8", "replace"))
        audience = self._audience or url
        if not self._account or not audience:
            # It is not configured who may push, and the requested address is the caller's own claim.
            raise Forbidden("Pushes are not accepted: GCP_PUSH_SERVICE_ACCOUNT or GCP_PUSH_AUDIENCE is not set.")
        email = token.claims.get("email")
        if not isinstance(email, str) or not hmac.compare_digest(email.encode(), self._account.encode()):
            raise Forbidden("The push comes from another account.")  # before its signature costs anything
        if isinstance(token.claims.get("aud"), list):
            raise Unauthorized("The token has another audience.")
        tokens = self._tokens.get(audience)
        if tokens is None:
            tokens = OIDCTokens.google(audience, keys_uri=self._keys_uri, on_rotated=lambda: None)
            self._tokens[audience] = tokens
        await tokens.verify(token, time.time())

    async def _look_up(self, path: str) -> Subscription:
        """Return the subscription of a verified request if the service did not create it, but has its topic."""
        if not self._subscribed and path.startswith("projects/"):
            for original in dict.fromkeys((path, path.removesuffix(REPLAY))):
                found = await self._subscriptions.find(original)
                if found is None:
                    continue
                for name, identifier in self._topics.items():
                    subscription = Subscription(original.rpartition("/")[2], identifier, name, "push")
                    if self._subscriptions.topic(subscription) == found.topic:
                        return subscription
        raise Forbidden("The subscription of the push does not belong to this service.")


def _envelope(request: PushRequest, body: bytes) -> tuple[str, Any]:
    """Return the path of the subscription that a request names, "" if none, and its envelope, None if unwrapped."""
    path = request.headers.get(f"{_METADATA}subscription-name")
    if path is not None:
        return path, None
    try:
        envelope = orjson.loads(body)
    except ValueError:
        return "", None
    if not isinstance(envelope, dict) or not isinstance(envelope.get("subscription"), str):
        return "", None
    return envelope["subscription"], envelope


def _decode_wrapped(envelope: Any, body: bytes, subscription: Subscription) -> Received:
    message = envelope.get("message")
    problem = "" if isinstance(message, dict) else "the push has no message"
    message = {} if problem else message
    data = b""
    try:
        data = base64.b64decode(message.get("data") or "", validate=True)
    except (binascii.Error, ValueError, TypeError):
        problem = "the data of the push is not base64"
    attributes = message.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    attributes = {name: text for name, text in attributes.items() if isinstance(text, str)}
    delivery_id = _text(message.get("messageId"))
    return Received(
        body if problem else data,
        attributes.get(ID_ATTRIBUTE) or delivery_id,
        _attempt(envelope.get("deliveryAttempt")),
        subscription,
        attributes,
        ordering_key=_text(message.get("orderingKey")) or None,
        undecodable=problem,
        delivery_id=delivery_id,
    )


def _decode_unwrapped(request: PushRequest, body: bytes, subscription: Subscription) -> Received:
    headers = request.headers
    attributes = {name: headers[name.lower()] for name in _ATTRIBUTES if name.lower() in headers}
    delivery_id = headers.get(f"{_METADATA}message-id", "")
    return Received(
        body,
        attributes.get(ID_ATTRIBUTE) or delivery_id,
        _attempt(headers.get(f"{_METADATA}delivery-attempt")),
        subscription,
        attributes,
        ordering_key=headers.get(f"{_METADATA}ordering-key") or None,
        delivery_id=delivery_id,
    )


def _attempt(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    return value if type(value) is int and value > 0 else 1


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
