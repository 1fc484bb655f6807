"""The keys that verify the service's own tokens, read again while the service runs, so that they can be rotated."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Final

from totoms.auth.tokens import hmac_key
from totoms.errors import Undecidable
from totoms.logging.logger import TotoLogger

REFRESH_AFTER: Final = 300.0
"""Seconds after which the keys are read again in the background, and so for which a withdrawn key still works."""
COOLDOWN: Final = 60.0
"""The least seconds between two reads, so that forged tokens cause no more."""
PREVIOUS: Final = "jwt-signing-key-previous"

Read = Callable[[], Awaitable[tuple[str | None, str | None]]]


class SigningKeys:
    """The signing key and, while it is being rotated, the previous one.

    Args:
        current: The value of the secret ``jwt-signing-key``.
        previous: The value of the secret ``jwt-signing-key-previous``; None without one.
        read: Reads both from the store; None for keys that do not change.
        on_withdrawn: Called when a key is no longer among them.
        clock: Returns monotonic seconds.

    Raises:
        ConfigurationError: A key is too short, or looks like a public key.
    """

    def __init__(
        self,
        current: object,
        previous: object = None,
        *,
        read: Read | None = None,
        on_withdrawn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = _checked(current, previous)
        self._read_again = read
        self._on_withdrawn = on_withdrawn
        self._clock = clock
        self._tried = clock()
        self._failed = False
        self._reading: asyncio.Task[None] | None = None

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Return whether one of the keys made a signature. Read the keys again in the background if they are old."""
        if self._read_again is not None and self._clock() - self._tried >= REFRESH_AFTER:
            self._start()
        # The same as PyJWT's HMACAlgorithm.verify, without a hash object.
        return any(hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature) for key in self._keys)

    async def verify_anew(self, signed: bytes, signature: bytes) -> bool:
        """Return whether a key made a signature that is in the store now. Within the cooldown the store is not asked.

        Raises:
            Undecidable: The keys could not be read.
        """
        if self._read_again is None:
            return False
        if self._clock() - self._tried >= COOLDOWN:
            self._start()
        if self._reading is not None:
            # wait() does not cancel the read when this caller is cancelled: others wait for it too.
            await asyncio.wait({self._reading})
        if self.verify(signed, signature):
            return True
        if self._failed:
            raise Undecidable("The caller's token cannot be verified now.", retry_after=int(COOLDOWN))
        return False

    def _start(self) -> None:
        if self._reading is None or self._reading.done():
            self._tried = self._clock()
            self._reading = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        assert self._read_again is not None
        try:
            keys = _checked(*await self._read_again())
        except Exception as error:  # of the store, or of a key that is too short
            self._failed = True
            TotoLogger.get_instance().log("", "Cannot read the JWT signing keys again", "ERROR", error)
            return
        withdrawn, self._keys, self._failed = set(self._keys) - set(keys), keys, False
        if withdrawn:
            self._on_withdrawn()


def _checked(current: object, previous: object) -> tuple[bytes, ...]:
    keys = [] if current is None else [hmac_key(current)]
    if previous is not None:
        keys.append(hmac_key(previous, PREVIOUS))
    return tuple(keys)
