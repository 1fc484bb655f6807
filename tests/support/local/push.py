"""What the push contract needs of the local backend, for it and for broken variants of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import jwt

from totoms.auth.tokens import make_token
from totoms.environment import TotoEnvironment
from totoms.local.configuration import LocalConfiguration
from totoms.local.keys import push_key, signing_key
from totoms.local.messages.bus import LocalMessageBus
from totoms.local.messages.push import AUDIENCE, push_token
from totoms.testing import Pushed, PushHarness


class LocalPushHarness(PushHarness):
    """Whoever has the folder's key is the broker."""

    def __init__(self, root: Path, bus_class: type[LocalMessageBus] = LocalMessageBus) -> None:
        super().__init__()
        self._root = root
        self._bus_class = bus_class
        self._buses: list[LocalMessageBus] = []

    async def connect(self) -> LocalMessageBus:
        environment = TotoEnvironment("local", LocalConfiguration(root=self._root))
        bus = self._bus_class(environment, {"posts": "posts-topic"})
        self._buses.append(bus)
        return bus

    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        return self._request(body, push_token(self._root), message_id=message_id, attempt=attempt)

    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        key, later = push_key(self._root), int(time.time()) + 300
        other = push_token(self._root.with_name(f"{self._root.name}-of-another"))
        notification = {"Type": "Notification", "TopicArn": "posts-topic", "Message": body.decode(), "Signature": "x"}
        return {
            "no credentials": Pushed(body, {"x-totoms-topic": "posts-topic"}),
            "forged": self._request(body, jwt.encode({"aud": AUDIENCE, "exp": later}, "f" * 32, algorithm="HS256")),
            "expired": self._request(body, push_token(self._root, lifetime=-60)),
            "wrong audience": self._request(body, jwt.encode({"aud": "other", "exp": later}, key, algorithm="HS256")),
            "wrong account": self._request(body, other),
            "wrong topic": self._request(body, push_token(self._root), topic="another-topic"),
            "another cloud's envelope": Pushed(
                json.dumps(notification).encode(),
                {"x-amz-sns-message-type": "Notification", "x-totoms-topic": "posts-topic"},
            ),
            "a user's API token": self._request(body, make_token(signing_key(self._root), "me@example.com")),
        }

    def keys_unreachable(self) -> AbstractAsyncContextManager[None]:
        return self._key_put_away()

    @contextlib.asynccontextmanager
    async def _key_put_away(self) -> AsyncIterator[None]:
        # A symbolic link is what even root does not read here.
        key, aside = self._root / "signing-key", self._root / "signing-key-put-away"
        os.rename(key, aside)
        os.symlink(aside, key)
        try:
            yield
        finally:
            os.replace(aside, key)

    async def close(self) -> None:
        await asyncio.gather(*(bus.close() for bus in self._buses))
        await super().close()

    @staticmethod
    def _request(
        body: bytes, token: str, *, topic: str = "posts-topic", message_id: str = "m-1", attempt: int = 1
    ) -> Pushed:
        headers = {
            "authorization": f"Bearer {token}",
            "x-totoms-topic": topic,
            "x-totoms-message-id": message_id,
            "x-totoms-attempt": str(attempt),
        }
        return Pushed(body, headers)
