"""The harness that the author of a backend writes for the push contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Final

from totoms.messages.bus import MessageBus
from totoms.testing.audit import Recording

TOPIC: Final = "posts"
"""The logical name of the topic of genuine requests."""

FORGERIES: Final = (
    "no credentials",
    "forged",
    "expired",
    "wrong audience",
    "wrong account",
    "wrong topic",
    "another cloud's envelope",
    "a user's API token",
)
"""The keys of :meth:`PushHarness.forgeries`."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push request.

    Attributes:
        body: The raw body.
        headers: The request headers.
        method: ``POST``, or ``OPTIONS`` for a handshake.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


class PushHarness(ABC):
    """Builds the push requests of one test.

    Attributes:
        url: The public address of the endpoint, as registered with the broker.
        patience: The longest that a test waits for something, in seconds.
        max_deliveries: How often the broker delivers a message before it gives up, with the limits that your backend
            sets or asks for.
        final_statuses: Statuses after which the broker does not deliver a message again.
    """

    url: ClassVar[str] = "https://service.example/events"
    patience: float = 120.0
    max_deliveries: int = 100
    final_statuses: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self._outbound = Recording()

    @abstractmethod
    async def connect(self) -> MessageBus:
        """Return a bus with the topic `TOPIC`, which may subscribe to it. Close it in `close`."""

    @abstractmethod
    async def genuine(self, body: bytes, *, message_id: str = "m-1", attempt: int = 1) -> Pushed:
        """Return the request with which the broker delivers a message of `TOPIC`.

        Args:
            body: The bytes that were published.
            message_id: The id that `publish_message` returned. For the same id, the broker's own id must be the same
                too: it is the same message, delivered again.
            attempt: The number of the delivery, if the broker sends it.
        """

    @abstractmethod
    async def forgeries(self, body: bytes) -> Mapping[str, Pushed | str]:
        """Return for each of `FORGERIES` a request with `body`, or the reason why this backend cannot have one.

        Each must be genuine except for its one flaw, so that it can only be refused for that:

        - no credentials: without any;
        - forged: signed with a key that is not the broker's;
        - expired: genuine, but too old;
        - wrong audience: genuine, for another service;
        - wrong account: genuine, of another account of the same cloud;
        - wrong topic: genuine, of a topic that the service does not have;
        - another cloud's envelope: as another hyperscaler would push it;
        - a user's API token: with a token that the service's endpoints accept.
        """

    @abstractmethod
    def keys_unreachable(self) -> AbstractAsyncContextManager[None] | str:
        """Make the keys that verify requests unreachable while the block runs, or return why that is impossible."""

    async def subscribe_by_hand(self, url: str) -> bool:
        """Make a push subscription of `TOPIC` to `url`, as an operator does, without the bus.

        Override it if your backend lists such subscriptions (`MessageBus._existing`).

        Returns:
            Whether it was made; False here.
        """
        return False

    def outbound_requests(self) -> int:
        """Return how many requests the process has made since the harness was created.

        This counts connections and name lookups made by Python. Override it if a C library connects to your key server.
        """
        return len(self._outbound.seen)

    @abstractmethod
    async def close(self) -> None:
        """Close the buses and delete what the harness created. End with ``await super().close()``."""
        self._outbound.stop()
