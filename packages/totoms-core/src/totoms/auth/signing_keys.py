"""The keys that verify the service's own tokens, read again while the service runs, so that they can be rotated."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from totoms.auth.tokens import hmac_key
from totoms.errors import Undecidable
from totoms.logging.logger import TotoLogger
from totoms.single_flight import SingleFlight
from totoms.telemetry import state as telemetry

REFRESH_AFTER: Final = 300.0
"""Seconds after which the keys are read again in the background, and so for which a withdrawn key still works."""
COOLDOWN: Final = 60.0
"""The least seconds between a read and the next, so that forged tokens cause no more."""
FAILED_COOLDOWN: Final = 10.0
"""The least seconds between a failed read and the next."""
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
        self._read_again = read
        self._on_withdrawn = on_withdrawn
        self._reading = SingleFlight[tuple[bytes, ...]](COOLDOWN, FAILED_COOLDOWN, clock=clock)
        self._reading.keep(_checked(current, previous))

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Return whether one of the keys made a signature. Read the keys again in the background if they are old."""
        reading = self._reading
        if self._read_again is not None and reading.age() >= REFRESH_AFTER and not reading.cooldown_left():
            reading.in_task(self._refresh)
        # The same as PyJWT's HMACAlgorithm.verify, without a hash object.
        return any(hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature) for key in self._keys)

    @property
    def _keys(self) -> tuple[bytes, ...]:
        return self._reading.result or ()

    async def verify_anew(self, signed: bytes, signature: bytes) -> bool:
        """Return whether a key made a signature that is in the store now. Soon after a read the store is not asked.

        Raises:
            Undecidable: The keys could not be read.
        """
        if self._read_again is None:
            return False
        await self._reading.attempt(self._refresh)
        if self.verify(signed, signature):
            return True
        if self._reading.failed:
            retry_after = max(1, math.ceil(self._reading.cooldown_left()))
            raise Undecidable("The caller's token cannot be verified now.", retry_after=retry_after)
        return False

    async def _refresh(self) -> tuple[bytes, ...]:
        assert self._read_again is not None
        try:
            keys = _checked(*await self._read_again())
        except Exception as error:  # of the store, or of a key that is too short
            TotoLogger.get_instance().log("", "Cannot read the JWT signing keys again", "ERROR", error)
            telemetry.count_key_fetch("secrets", failed=True)
            raise
        telemetry.count_key_fetch("secrets", failed=False)
        if set(self._keys) - set(keys):
            self._on_withdrawn()
        return keys


def _checked(current: object, previous: object) -> tuple[bytes, ...]:
    keys = [] if current is None else [hmac_key(current)]
    if previous is not None:
        keys.append(hmac_key(previous, PREVIOUS))
    return tuple(keys)
