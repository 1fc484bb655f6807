"""The harness of the push contract on Pub/Sub: a key server, and requests as Pub/Sub sends them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from google.pubsub_v1 import types

from standins.gcp.pubsub import PubSubStandIn
from support.gcp.messages import Operator
from support.http.app import KeyServer
from totoms.auth.tokens import make_token
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.messages.subscription import Subscription
from totoms.testing import Pushed, PushHarness
from totoms.testing.push.harness import TOPIC
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.messages.bus import PubSubMessageBus

ACCOUNT = "pusher@project.iam.gserviceaccount.com"


class PubSubPushHarness(PushHarness):
    """Pub/Sub, on a stand-in, and Google's key server, on another.

    Args:
        server: Where the subscription is made.
        key_server: Has the key "one".
        other_key: One that it does not have.
    """

    def __init__(self, server: PubSubStandIn, key_server: KeyServer, other_key: RSAPrivateKey) -> None:
        super().__init__()
        self._server = server
        self._key_server = key_server
        self._other_key = other_key
        self._project = f"project-{new_cid()[:16]}"
        self.path = f"projects/{self._project}/subscriptions/tested-posts"
        self._buses: list[PubSubMessageBus] = []
        self._operator = Operator(server.port, self._project)
        self._operator.make_topic("posts-topic")
        self._bus_class = type("ImpatientBus", (PubSubMessageBus,), {"keys_uri": key_server.uri})
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{server.port}"

    def bus(self, **settings: str) -> PubSubMessageBus:
        """Return a bus that nothing is subscribed on."""
        settings = {"push_service_account": ACCOUNT, **settings}
        environment = TotoEnvironment("gcp", GCPConfiguration(project_id=self._project, **settings))
        made: PubSubMessageBus = self._bus_class(environment, {TOPIC: "posts-topic"})
        self._buses.append(made)
        return made

    def publish(self, body: bytes, attributes: Mapping[str, str]) -> None:
        """Publish bytes, as the operator."""
        self._operator.publish("posts-topic", body, attributes)

    async def connect(self) -> PubSubMessageBus:
        made = self.bus()
        subscription = Subscription("tested-posts", "posts-topic", TOPIC, delivery="push", push_url=self.url)
        await made._subscribe_push(subscription, create=True)
        return made

    async def subscribe_by_hand(self, url: str) -> bool:
        subscription = types.Subscription(
            name=f"{self.path}-by-hand",
            topic=f"projects/{self._project}/topics/posts-topic",
            push_config=types.PushConfig(push_endpoint=url),
        )
        await asyncio.to_thread(self._operator.subscriptions.create_subscription, subscription)
        return True

    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        return self.request(body, self.token(), message_id=message_id, attempt=attempt)

    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        notification = {"Type": "Notification", "TopicArn": "posts-topic", "Message": body.decode(), "Signature": "x"}
        return {
            "no credentials": self.request(body, ""),
            "forged": self.request(body, self.token(key=self._other_key)),
            "expired": self.request(body, self.token(exp=int(time.time()) - 60)),
            "wrong audience": self.request(body, self.token(aud="https://other.example/events")),
            "wrong account": self.request(body, self.token(email=ACCOUNT.replace("pusher", "another"))),
            "wrong topic": self.request(body, self.token(), path=f"{self.path}-of-another"),
            "another cloud's envelope": Pushed(
                json.dumps(notification).encode(), {"x-amz-sns-message-type": "Notification"}
            ),
            "a user's API token": self.request(body, make_token("k" * 32, "me@example.com")),
        }

    def token(self, key: RSAPrivateKey | None = None, **claims: Any) -> str:
        """Return a token as Google makes it, with some claims in place of its own; None leaves one out."""
        now = int(time.time())
        wanted = {
            "iss": "https://accounts.google.com",
            "aud": self.url,
            "email": ACCOUNT,
            "email_verified": True,
            "sub": "1",
            "iat": now,
            "exp": now + 3600,
            **claims,
        }
        return jwt.encode(
            {name: claim for name, claim in wanted.items() if claim is not None},
            key or self._key_server.keys["one"],
            algorithm="RS256",
            headers={"kid": "one"},
        )

    def request(self, body: bytes, token: str, *, path: str = "", message_id: str = "m-1", attempt: int = 1) -> Pushed:
        """Return a request with a wrapped payload."""
        message = {
            "data": base64.b64encode(body).decode(),
            "attributes": {"messageId": message_id},
            "messageId": f"of-pubsub-{message_id}",
            "publishTime": "2025-11-23T12:00:00Z",
        }
        envelope = {"message": message, "subscription": path or self.path, "deliveryAttempt": attempt}
        return Pushed(json.dumps(envelope).encode(), {"authorization": f"Bearer {token}"} if token else {})

    def keys_unreachable(self) -> AbstractAsyncContextManager[None]:
        return self._keys_away()

    @asynccontextmanager
    async def _keys_away(self) -> AsyncIterator[None]:
        self._key_server.status = 503
        try:
            yield
        finally:
            self._key_server.status = 200

    def outbound_requests(self) -> int:
        return super().outbound_requests() + sum(self._server.calls.values())

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))
        await asyncio.to_thread(self._operator.close)
        os.environ.pop("PUBSUB_EMULATOR_HOST", None)
        await super().close()
