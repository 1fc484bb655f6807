"""Push on the local backend: a program that has the folder's push key may deliver to ``/events``.

::

    POST /events
    authorization: Bearer <JWT, HS256, signed with the push key, aud "totoms-push", exp>
    x-totoms-topic: <a topic of the service, by identifier or logical name>
    x-totoms-message-id, x-totoms-attempt: <optional>

    <the wire form of the message>
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from totoms.auth.tokens import check_times, parse_token
from totoms.context import new_cid
from totoms.errors import Forbidden, Unauthorized
from totoms.local.keys import push_key
from totoms.messages.push_request import PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription

AUDIENCE: Final = "totoms-push"
_ATTEMPT: Final = re.compile(r"[1-9][0-9]{0,8}")
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def push_token(root: Path, lifetime: float = 300.0) -> str:
    """Return a token that authorizes pushes to services with this root folder.

    Args:
        root: The root folder.
        lifetime: Seconds until the token expires.
    """
    import jwt

    return jwt.encode({"aud": AUDIENCE, "exp": int(time.time() + lifetime)}, push_key(root), algorithm="HS256")


def received(request: PushRequest, body: bytes, subscription: Subscription) -> Received:
    """Return the message in a verified request."""
    attempt = request.headers.get("x-totoms-attempt", "1")
    message_id = request.headers.get("x-totoms-message-id", "")
    return Received(
        body,
        message_id if _MESSAGE_ID.fullmatch(message_id) else new_cid(),
        int(attempt) if _ATTEMPT.fullmatch(attempt) else 1,
        subscription,
    )


def verify(request: PushRequest, root: Path, topics: Mapping[str, str]) -> Subscription:
    """Verify the headers of a push request and return its subscription. Blocks: it reads the key.

    Raises:
        Unauthorized: The token is missing, expired, or not signed with the push key.
        Forbidden: The token is for another audience, or the topic is not one of the service's.
    """
    scheme, _, raw = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("A push token is required.")
    token = parse_token(raw.strip(" ").encode("latin-1", "replace"))
    genuine = hmac.compare_digest(hmac.digest(push_key(root), token.signed, "sha256"), token.signature)
    if token.algorithm != "HS256" or not genuine:
        raise Unauthorized("The push token has a wrong signature.")
    check_times(token.claims, time.time())
    if token.claims.get("aud") != AUDIENCE:
        raise Forbidden("The push token is for another audience.")
    wanted = request.headers.get("x-totoms-topic", "")
    logical = next((name for name, topic in topics.items() if wanted in (name, topic)), None)
    if logical is None:
        raise Forbidden("The topic is not one of this service's.")
    return Subscription(f"push-{logical}", topics[logical], logical, delivery="push")
