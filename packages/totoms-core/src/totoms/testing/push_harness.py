"""What the contract of the push endpoint needs of a backend's author."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Final

from totoms.bus import MessageBus
from totoms.testing.audit import Recording

TOPIC: Final = "posts"
"""The logical name of the topic that genuine requests are about."""

FORGERIES: Final = (
    "no credentials", "forged", "expired", "wrong audience", "wrong account", "wrong topic", "another cloud's envelope",
    "a user's API token",
)  # fmt: skip
"""What :meth:`PushHarness.forgeries` has an entry for."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push request.

    Attributes:
        body: The raw body.
        headers: As sent.
        method: ``POST``, or ``OPTIONS`` for a handshake.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


class PushHarness(ABC):
    """One test's hold on a broker that pushes.

    Attributes:
        url: The public address of the endpoint, as the broker was told it.
        patience: Seconds within which what must happen, happens.
    """

    url: ClassVar[str] = "https://service.example/events"
    patience: float = 20.0

    def __init__(self) -> None:
        self._outbound = Recording()

    @abstractmethod
    async def connect(self) -> MessageBus:
        """Return a bus that knows the topic `TOPIC`, and may subscribe to it. The harness closes it at the end."""

    @abstractmethod
    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        """Return the request with which the broker delivers a message of `TOPIC`.

        Args:
            body: The bytes that were published.
            message_id: What `publish_message` returned for it.
            attempt: Which delivery it is, where the broker tells that.
        """

    @abstractmethod
    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        """Return for each of `FORGERIES` a request that brings `body`, or why there can be none on this backend.

        All but the one thing that is wrong shall be right, so that it is that one thing for which it is refused.

        - no credentials: nothing that says who sent it;
        - forged: signed with a key that is not the broker's;
        - expired: genuine once;
        - wrong audience: genuine, for another service;
        - wrong account: genuine, of another account of the same cloud;
        - wrong topic: genuine, of a topic that is none of the service's;
        - another cloud's envelope: as another hyperscaler would push it;
        - a user's API token: with a token that the service's endpoints accept.
        """

    @abstractmethod
    def keys_unreachable(self) -> AbstractAsyncContextManager[None] | str:
        """Have what verifies a request out of reach while the block runs, or tell why that cannot be."""

    def outbound_requests(self) -> int:
        """Return how many requests the process made since the harness was made.

        As given here it counts connections and look-ups of names that Python makes. Count those of your key server as
        well where a library in C makes them.
        """
        return len(self._outbound.seen)

    @abstractmethod
    async def close(self) -> None:
        """Close the buses and remove what was made. Call it last: ``await super().close()``."""
        self._outbound.stop()
