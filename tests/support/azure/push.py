"""What pushes need of Azure: Event Grid, the key server of Entra ID, and a bus that is only pushed to."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import RSAAlgorithm

from support.http.app import KeyServer, sign
from support.messages.by_name import ThroughStore
from totoms.auth.tokens import make_token
from totoms.environment import TotoEnvironment
from totoms.errors import BackendError
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason, DeadLetterStore
from totoms.messages.driver import DEAD_LETTERS, PUSH
from totoms.messages.outgoing import Outgoing
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms.messages.subscription import Subscription
from totoms.testing import Pushed, PushHarness
from totoms.testing.push.harness import TOPIC
from totoms_azure.configuration import PUBLIC, AzureConfiguration
from totoms_azure.messages.push import PushReceiver

TENANT = "0f0f0f0f-1234-4321-abcd-0123456789ab"
AUDIENCE = "api://blog"
SECRET = "the secret of the tests, 32 characters or more"
RESOURCE = "/subscriptions/5a5a/resourceGroups/shop/providers/Microsoft.EventGrid/topics/"
NAME = "posts-topic"
TOPIC_ID = f"{RESOURCE}{NAME}"
SUBSCRIBED = "tested-posts"


class EventGrid:
    """Sends what Event Grid would send.

    Args:
        key_server: Has the key "one".
        credential: What it shows: ``token`` or ``secret``.
        cloud_events: Whether in that schema.
        topic: The name of the topic that it pushes of.
    """

    def __init__(
        self, key_server: KeyServer, credential: str = "token", *, cloud_events: bool = False, topic: str = NAME
    ) -> None:
        self.key_server = key_server
        self.credential = credential
        self.cloud_events = cloud_events
        self.topic = topic

    def settings(self, **settings: str) -> dict[str, str]:
        """Return the settings of a service that accepts the credential."""
        token = {"push_audience": AUDIENCE, "push_tenant": TENANT, "push_secret": ""}
        secret = {"push_secret": SECRET, "push_audience": "", "push_tenant": ""}
        return {**(token if self.credential == "token" else secret), **settings}

    def token(self, key: RSAPrivateKey | None = None, **claims: Any) -> str:
        """Return a token as Entra ID makes it, with some claims in place of its own; None leaves one out."""
        now = int(time.time())
        wanted = {
            "aud": AUDIENCE,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "appid": PUBLIC.event_grid,
            "appidacr": "2",
            "sub": "of the service principal",
            "tid": TENANT,
            "ver": "1.0",
            **claims,
        }
        # Not by PyJWT's encode, which makes no token whose claims are of wrong types.
        signer = RSAAlgorithm(RSAAlgorithm.SHA256)
        payload = {name: claim for name, claim in wanted.items() if claim is not None}
        return sign(
            b'{"alg":"RS256","kid":"one","typ":"JWT"}',
            json.dumps(payload).encode(),
            lambda signed: signer.sign(signed, key or self.key_server.keys["one"]),
        )

    def second_token(self, **claims: Any) -> str:
        """Return a token of version 2."""
        issuer = f"https://login.microsoftonline.com/{TENANT}/v2.0"
        return self.token(**{"iss": issuer, "appid": None, "azp": PUBLIC.event_grid, "ver": "2.0", **claims})

    def credentials(self) -> dict[str, str]:
        """Return the headers with which it shows who it is."""
        if self.credential == "secret":
            return {"x-totoms-push-secret": SECRET}
        return {"authorization": f"Bearer {self.token()}"}

    def event(self, body: bytes, *, message_id: str = "m-1", topic: str | None = None) -> bytes:
        """Return an event that brings a message: as it is if it is an object, else as text or in base64."""
        data = _as_object(body)
        topic = f"{RESOURCE}{self.topic}" if topic is None else topic
        if not self.cloud_events:
            told = {"id": message_id, "topic": topic, "subject": "post", "eventType": "postCreated"}
            return _with(
                {**told, "eventTime": "2025-11-23T12:00:00Z", "dataVersion": "1", "metadataVersion": "1"},
                "data",
                data or json.dumps(body.decode()).encode(),
            )
        told = {"specversion": "1.0", "type": "postCreated", "source": topic, "id": message_id}
        if data is None:
            return _with(told, "data_base64", json.dumps(base64.b64encode(body).decode()).encode())
        return _with(told, "data", data)

    def request(
        self, *events: bytes, headers: Mapping[str, str] | None = None, attempt: int = 1, kind: str = "Notification"
    ) -> Pushed:
        """Return the request that brings these events; `headers` in place of its credentials."""
        if self.cloud_events:
            content_type = "application/cloudevents+json" if len(events) == 1 else "application/cloudevents-batch+json"
        else:
            content_type = "application/json"
        single = self.cloud_events and len(events) == 1
        sent = {
            "content-type": f"{content_type}; charset=utf-8",
            "aeg-event-type": kind,
            "aeg-subscription-name": SUBSCRIBED.upper(),
            "aeg-delivery-count": str(attempt - 1),
            **(self.credentials() if headers is None else headers),
        }
        return Pushed(events[0] if single else b"[" + b",".join(events) + b"]", sent)

    def validation(self, url: str = "https://rp.example/validate", **changes: Any) -> bytes:
        """Return the event that asks whether this endpoint is meant."""
        told = {
            "id": "v-1",
            "topic": TOPIC_ID.upper(),
            "subject": "",
            "eventTime": "2025-11-23T12:00:00Z",
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "dataVersion": "1",
            "data": {"validationCode": "512d38b6", "validationUrl": url},
            **changes,
        }
        return json.dumps(told).encode()


def _as_object(body: bytes) -> bytes | None:
    try:
        return body if isinstance(json.loads(body), dict) else None
    except ValueError:
        return None


def _with(told: Mapping[str, str], name: str, value: bytes) -> bytes:
    # Spliced: the message's bytes are to come out as they are.
    return json.dumps(told).encode()[:-1] + b', "' + name.encode() + b'": ' + value + b"}"


class PushedBus(MessageBus):
    """A bus that Event Grid pushes to; dead letters are kept in memory."""

    capabilities = frozenset({PUSH, DEAD_LETTERS})
    keys_uri = ""

    def __init__(self, environment: TotoEnvironment | None = None, topics: Mapping[str, str] | None = None) -> None:
        super().__init__(environment, topics)
        settings = self.environment.hyperscaler_configuration
        assert isinstance(settings, AzureConfiguration)
        self.pushes = PushReceiver(settings, self.topics, self.keys_uri)
        self.subscriptions: dict[str, Subscription] = {}
        self.dead: list[DeadLetter] = []

    async def _publish(self, batch: Sequence[Outgoing]) -> Sequence[BackendError | None]:
        raise NotImplementedError

    async def _subscribe_push(self, subscription: Subscription, *, create: bool) -> None:
        self.subscriptions[subscription.topic] = subscription

    async def _accept_push(self, request: PushRequest) -> PushReply | Sequence[Received]:
        return await self.pushes.accept(request, self.subscriptions)

    def _dead_letters(self, subscription: str) -> DeadLetterStore:
        return ThroughStore(self, subscription)

    async def _dead_letter(self, received: Received, reason: DeadLetterReason) -> None:
        name = received.subscription.name
        number = str(len(self.dead))
        self.dead.append(
            DeadLetter(number, received.message_id, name, received.body, received.attributes, reason, time.time())
        )

    async def _list_dead_letters(self, subscription: str, limit: int) -> list[DeadLetter]:
        return [letter for letter in self.dead if letter.subscription == subscription][:limit]


MakeBus = Callable[[TotoEnvironment, Mapping[str, str], str], MessageBus]


def pushed_bus(environment: TotoEnvironment, topics: Mapping[str, str], keys_uri: str) -> MessageBus:
    """Return a `PushedBus` whose keys are at `keys_uri`."""
    made: MessageBus = type("PushedBusOfTests", (PushedBus,), {"keys_uri": keys_uri})(environment, topics)
    return made


class AzurePushHarness(PushHarness):
    """Event Grid, and the key server of Entra ID.

    Args:
        grid: Event Grid.
        other_key: A key that its key server does not have.
        make: Makes a bus, of its environment, its topics and the address of the keys.
        settings: Further settings of the buses.
    """

    max_deliveries = 30
    final_statuses = frozenset({400, 401, 403, 413})

    def __init__(self, grid: EventGrid, other_key: RSAPrivateKey, make: MakeBus = pushed_bus, **settings: str) -> None:
        super().__init__()
        self.grid = grid
        self._other_key = other_key
        self._make = make
        self._settings = settings
        self._buses: list[MessageBus] = []

    def bus(self, topics: Mapping[str, str] | None = None, **settings: str) -> MessageBus:
        """Return a bus that nothing is subscribed on."""
        configuration = AzureConfiguration(**{**self._settings, **self.grid.settings(**settings)})
        environment = TotoEnvironment("azure", configuration)
        made = self._make(environment, topics or {TOPIC: self.grid.topic}, self.grid.key_server.uri)
        self._buses.append(made)
        return made

    async def connect(self) -> MessageBus:
        made = self.bus()
        await made._subscribe_push(
            Subscription(SUBSCRIBED, self.grid.topic, TOPIC, delivery="push", push_url=self.url), create=True
        )
        return made

    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        return self.grid.request(self.grid.event(body, message_id=message_id), attempt=attempt)

    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        event = self.grid.event(body)
        envelope = {
            "message": {"data": base64.b64encode(body).decode(), "messageId": "1"},
            "subscription": "projects/p/subscriptions/tested-posts",
        }
        tokens = self.grid.credential == "token"

        def shown(**claims: Any) -> Pushed | str:
            if not tokens:
                return "a secret is the same for all time, for one service and for one account"
            return self.grid.request(event, headers={"authorization": f"Bearer {self.grid.token(**claims)}"})

        wrong = {"x-totoms-push-secret": SECRET[:-1] + "x"}
        return {
            "no credentials": self.grid.request(event, headers={}),
            "forged": shown(key=self._other_key) if tokens else self.grid.request(event, headers=wrong),
            "expired": shown(exp=int(time.time()) - 60),
            "wrong audience": shown(aud="api://shop"),
            "wrong account": shown(appid="00000000-0000-0000-0000-000000000000"),
            "wrong topic": self.grid.request(self.grid.event(body, topic=f"{TOPIC_ID}-of-another")),
            "another cloud's envelope": Pushed(
                json.dumps(envelope).encode(),
                {"authorization": "Bearer " + self.grid.token(iss="https://accounts.google.com", email="me@gcp")},
            ),
            "a user's API token": self.grid.request(
                event, headers={"authorization": f"Bearer {make_token('k' * 32, 'me@example.com')}"}
            ),
        }

    def keys_unreachable(self) -> AbstractAsyncContextManager[None] | str:
        return self._keys_away() if self.grid.credential == "token" else "a secret needs no keys"

    @asynccontextmanager
    async def _keys_away(self) -> AsyncIterator[None]:
        self.grid.key_server.status = 503
        try:
            yield
        finally:
            self.grid.key_server.status = 200

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))
        await super().close()
