"""Memory of pushed messages: how often the handler failed for each, and which were handled already.

A broker counts every answer that is not 2xx as a failed delivery, also when the service is full, stopping or down. So
its count cannot decide when to dead-letter a message; each process counts failures of the handler itself. The broker's
own limit is set as high as it allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from totoms.messages.receiver import Received

_MOST: Final = 10_000

DeliveryKey = tuple[str, str, bytes]


def delivery_key(received: Received) -> DeliveryKey:
    """Return a key that is the same on each redelivery of a pushed message.

    It is the broker's own id if there is one. Any other id is chosen by the publisher, so the key has a digest of the
    body as well: another message with the same id must not get lost.
    """
    if received.delivery_id:
        return received.subscription.name, received.delivery_id, b""
    return received.subscription.name, received.message_id, hashlib.sha256(received.body).digest()


class Failures:
    """Counts the failures of each message; forgets first those that failed longest ago.

    Args:
        most: The most messages to remember.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._failed: dict[DeliveryKey, tuple[int, float]] = {}

    def of(self, key: DeliveryKey) -> int:
        """Return how often the handler failed for a message."""
        return self._failed[key][0] if key in self._failed else 0

    def pause(self, key: DeliveryKey, now: float) -> float:
        """Return the seconds in which the handler must not run for a message again."""
        return max(0.0, self._failed[key][1] - now) if key in self._failed else 0.0

    def add(self, key: DeliveryKey, until: float = 0.0) -> None:
        """Count one more failure.

        Args:
            key: The message.
            until: The time until which the handler must not run for it again.
        """
        failures = self.of(key) + 1
        self._failed.pop(key, None)  # to the end of the order
        self._failed[key] = failures, until
        if len(self._failed) > self._most:
            del self._failed[next(iter(self._failed))]

    def forget(self, key: DeliveryKey) -> None:
        """Forget a message, because it is settled."""
        self._failed.pop(key, None)


class HandledMessages:
    """Remembers which messages of a partly failed push were handled; forgets the oldest first.

    Args:
        most: The most messages to remember.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._handled: dict[DeliveryKey, None] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._handled)

    def take(self, request: Iterable[Received]) -> set[Received]:
        """Return which messages of a request were handled already, and forget them: each is skipped once."""
        if not self._handled:
            return set()
        keys = {received: delivery_key(received) for received in request}
        known = {received for received, key in keys.items() if key in self._handled}
        for received in known:
            self._handled.pop(keys[received], None)
        return known

    def add(self, handled: Iterable[Received], failed: Iterable[Received]) -> None:
        """Remember the handled messages of a request that the broker will send again.

        Args:
            handled: Messages not to be handled again.
            failed: Messages to be handled again. A handled message with the same key as one of these is too.
        """
        again = {delivery_key(received) for received in failed}
        for received in handled:
            key = delivery_key(received)
            if received.message_id and key not in again:
                self._handled[key] = None
        while len(self._handled) > self._most:
            del self._handled[next(iter(self._handled))]
