"""What is settled already of push requests that must come again.

A request may bring several messages, and has but one status to answer with. When one of them must come again, the
broker brings them all again; the others are not handled a second time then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from totoms.envelope import Received

_MOST: Final = 10_000

_Key = tuple[str, str, bytes]


class Repeats:
    """Remembers messages until the broker brings them again; the oldest are forgotten first.

    A message is known by its subscription, its id and its bytes: ids are chosen by those who publish, and another
    message that has the same one must not get lost.

    Args:
        most: How many are remembered.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._settled: dict[_Key, None] = {}

    def __bool__(self) -> bool:
        """Tell whether anything is remembered."""
        return bool(self._settled)

    def take(self, request: Iterable[Received]) -> set[Received]:
        """Return which messages of a request are settled already, and forget them: they are skipped once."""
        if not self._settled:
            return set()
        keys = {received: _key(received) for received in request}
        known = {received for received, key in keys.items() if key in self._settled}
        for received in known:
            self._settled.pop(keys[received], None)
        return known

    def add(self, settled: Iterable[Received], failed: Iterable[Received]) -> None:
        """Remember what is settled of a request that will come again.

        Args:
            settled: Not to be handled again.
            failed: To be handled again, as is each of `settled` that cannot be told from one of these.
        """
        again = {_key(received) for received in failed}
        for received in settled:
            key = _key(received)
            if received.message_id and key not in again:
                self._settled[key] = None
        while len(self._settled) > self._most:
            del self._settled[next(iter(self._settled))]


def _key(received: Received) -> _Key:
    return received.subscription.name, received.message_id, hashlib.sha256(received.body).digest()
