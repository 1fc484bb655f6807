"""What the contract of the push endpoint needs of SNS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from standins.aws.sns_certificates import CertificateServer
from standins.aws.sns_push import PushingSNS, Signer, body_of, make_signer
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic
from totoms.auth.tokens import make_token
from totoms.context import new_cid
from totoms.messages.message import ID_ATTRIBUTE
from totoms.messages.subscription import Subscription
from totoms.testing import Pushed, PushHarness
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages.signatures import Certificates

HOST = f"sns.{aws_kit.REGION}.amazonaws.com"
NOWHERE = "https://127.0.0.1:1/events"
"""The address that ministack gets to push to: the stand-in pushes in its place."""
_SIGNERS: list[Signer] = []


def signer() -> Signer:
    """Return a key with a certificate; keys take long to make, so it is the same one each time."""
    if not _SIGNERS:
        _SIGNERS.append(make_signer())
    return _SIGNERS[0]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SNSPushHarness(PushHarness):
    """A ministack keeps the topic; the stand-in pushes.

    Args:
        configuration: The ministack's settings.
        server: Where the certificate is.
    """

    final_statuses = frozenset(range(400, 500)) - {429}

    def __init__(self, configuration: AWSConfiguration, server: CertificateServer, version: str) -> None:
        super().__init__()
        self._configuration = configuration
        self._server = server
        self._version = version
        self._clock = Clock()
        self._name = f"service-{new_cid()[:16]}"
        self._buses: list[BusOfTests] = []
        self._sns: PushingSNS | None = None

    async def connect(self) -> BusOfTests:
        sns = await self._pushing()
        bus = BusOfTests(aws_kit.environment(self._configuration), {"posts": sns.topic})
        use_clock(bus, self._clock)
        self._buses.append(bus)
        pushed = Subscription(self._name, sns.topic, "posts", delivery="push", push_url=NOWHERE)
        await bus._subscribe_push(pushed, create=True)
        return bus

    async def subscribe_by_hand(self, url: str) -> bool:
        sns: Any = aws_kit.sdk("sns", self._configuration)
        topic = (await self._pushing()).topic
        await asyncio.to_thread(sns.subscribe, TopicArn=topic, Protocol="https", Endpoint=url)
        return True

    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        sns = await self._pushing()
        return _request(sns, self._notification(sns, body, message_id))

    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        sns, text = await self._pushing(), body.decode()
        unsigned = {**self._notification(sns, body), "Signature": None, "SigningCertURL": None}
        other = PushingSNS(sns.topic, self._server, make_signer())
        pubsub = {"message": {"data": "e30=", "messageId": "1", "attributes": {}}, "subscription": "projects/p/s"}
        token = make_token("the signing key of the contract, 32 bytes or more", "me@example.com")
        return {
            "no credentials": _request(sns, {name: value for name, value in unsigned.items() if value is not None}),
            "forged": _request(sns, {**other.notification(text, version=self._version), "SigningCertURL": sns.url}),
            "expired": _request(
                sns, sns.notification(text, version=self._version, Timestamp="2025-01-02T03:04:05.678Z")
            ),
            "wrong audience": "SNS signs for nobody in particular: what is not of a topic of ours is refused",
            "wrong account": _request(sns, self._of(sns, text, sns.topic.replace(":000000000000:", ":111111111111:"))),
            "wrong topic": _request(sns, self._of(sns, text, f"{sns.topic}-2")),
            "another cloud's envelope": Pushed(json.dumps(pubsub).encode(), {"authorization": "Bearer e.y.J"}),
            "a user's API token": Pushed(body, {"authorization": f"Bearer {token}"}),
        }

    def keys_unreachable(self) -> AbstractAsyncContextManager[None]:
        return self._away()

    @contextlib.asynccontextmanager
    async def _away(self) -> AsyncIterator[None]:
        self._server.away = True
        try:
            yield
        finally:
            self._server.away = False
            self._clock.now += 60

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))
        await super().close()

    async def _pushing(self) -> PushingSNS:
        if self._sns is None:
            topic = await asyncio.to_thread(make_topic, self._configuration)
            self._sns = PushingSNS(topic, self._server, signer())
        return self._sns

    def _notification(self, sns: PushingSNS, body: bytes, message_id: str = "m-1") -> dict[str, Any]:
        same = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._name} {message_id}"))  # as when SNS delivers it again
        return sns.notification(body.decode(), {ID_ATTRIBUTE: message_id}, version=self._version, MessageId=same)

    def _of(self, sns: PushingSNS, text: str, topic: str) -> dict[str, Any]:
        return sns.notification(text, version=self._version, TopicArn=topic)


def use_clock(bus: BusOfTests, clock: Clock) -> None:
    """Have a bus wait after failures by a clock of the test's own."""
    bus._push_receiver._certificates = Certificates(clock=clock)


def _request(sns: PushingSNS, message: dict[str, Any]) -> Pushed:
    return Pushed(body_of(message), sns.headers(message))
