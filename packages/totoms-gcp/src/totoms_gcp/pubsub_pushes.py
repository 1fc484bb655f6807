"""Pushes: who sent them, and what they bring.

Pub/Sub signs them with an OIDC token (https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from totoms.envelope import PushRequest, Received, Subscription
from totoms.errors import Forbidden, Unauthorized
from totoms.messages import CONTENT_TYPE_ATTRIBUTE, ID_ATTRIBUTE, TRACEPARENT_ATTRIBUTE, TYPE_ATTRIBUTE
from totoms.tokens import parse_token
from totoms.verifiers import OIDCTokens
from totoms_gcp.configuration import GCPConfiguration

_METADATA: Final = "x-goog-pubsub-"
_ATTRIBUTES: Final = (TYPE_ATTRIBUTE, ID_ATTRIBUTE, TRACEPARENT_ATTRIBUTE, CONTENT_TYPE_ATTRIBUTE)


class PushVerifier:
    """Says whether a request comes from Pub/Sub, pushing as the account that was agreed on.

    Args:
        settings: The account, and the audience.
        keys_uri: Where Google publishes its keys.
    """

    def __init__(self, settings: GCPConfiguration, keys_uri: str) -> None:
        self._account = settings.push_service_account
        self._audience = settings.push_audience
        self._keys_uri = keys_uri
        self._tokens: dict[str, OIDCTokens] = {}

    async def verify(self, request: PushRequest, url: str) -> None:
        """Return if it does.

        Args:
            request: The request.
            url: The address that the subscription pushes to, "" where that is not known.

        Raises:
            Unauthorized, Forbidden: It does not. Nothing was fetched for its sake but, seldom, Google's keys.
            Undecidable: The keys cannot be had now.
        """
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("The push has no token.")
        token = parse_token(credentials.strip().encode("utf-8", "replace"))
        audience = self._audience or url
        if not self._account or not audience:
            # Who may push was never said; the requested address is the caller's own word.
            raise Forbidden("Pushes are not accepted: GCP_PUSH_SERVICE_ACCOUNT or GCP_PUSH_AUDIENCE is not set.")
        email = token.claims.get("email")
        if not isinstance(email, str) or not hmac.compare_digest(email.encode(), self._account.encode()):
            raise Forbidden("The push comes from another account.")  # before its signature costs anything
        if isinstance(token.claims.get("aud"), list):
            raise Unauthorized("The token has another audience.")
        tokens = self._tokens.get(audience)
        if tokens is None:
            tokens = self._tokens[audience] = OIDCTokens.google(
                audience, keys_uri=self._keys_uri, on_rotated=lambda: None
            )
        await tokens.verify(token, time.time())


def subscription_of(request: PushRequest) -> tuple[str, Any]:
    """Return the path of the subscription that a request names, "" if none, and its envelope, None if unwrapped."""
    named = request.headers.get(f"{_METADATA}subscription-name")
    if named is not None:
        return named, None
    try:
        envelope = orjson.loads(request.body)
    except ValueError:
        return "", None
    if not isinstance(envelope, dict) or not isinstance(envelope.get("subscription"), str):
        return "", None
    return envelope["subscription"], envelope


def received(request: PushRequest, envelope: Any, subscription: Subscription) -> Received:
    """Return the message of a verified request; one with the raw body if that makes no sense."""
    if envelope is None:
        return _unwrapped(request, subscription)
    message = envelope.get("message")
    if not isinstance(message, dict):
        return Received(request.body, "", _attempt(None), subscription)
    attributes = _texts(message.get("attributes"))
    message_id = attributes.get(ID_ATTRIBUTE) or _text(message.get("messageId"))
    attempt = _attempt(envelope.get("deliveryAttempt"))
    try:
        data = message.get("data") or ""
        body = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return Received(request.body, message_id, attempt, subscription, attributes)
    key = _text(message.get("orderingKey")) or None
    return Received(body, message_id, attempt, subscription, attributes, ordering_key=key)


def _unwrapped(request: PushRequest, subscription: Subscription) -> Received:
    headers = request.headers
    attributes = {name: headers[name.lower()] for name in _ATTRIBUTES if name.lower() in headers}
    message_id = attributes.get(ID_ATTRIBUTE) or headers.get(f"{_METADATA}message-id", "")
    attempt = _attempt(headers.get(f"{_METADATA}delivery-attempt"))
    key = headers.get(f"{_METADATA}ordering-key") or None
    return Received(request.body, message_id, attempt, subscription, attributes, ordering_key=key)


def _attempt(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    return value if type(value) is int and value > 0 else 1


def _texts(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
