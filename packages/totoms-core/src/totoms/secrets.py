"""Secrets: what services use, and the one operation that a backend fills in.

A secret's value appears in no log line, repr or exception: errors name the secret, and never carry what was read.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from abc import ABC
from concurrent.futures import Future
from typing import Any, ClassVar, Final

import orjson

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import BackendError, CorruptData, NotFound, Unavailable
from totoms.keys import check_secret_name
from totoms.operations import backend_operation
from totoms.secret_cache import CachePolicy, SecretCache

_caches: Final[dict[tuple[type[Any], TotoEnvironment], SecretCache]] = {}
_caches_lock: Final = threading.Lock()


class SecretsManager(ABC):  # noqa: B024 - it has one: see backend_operation
    """Reads secrets. ``SecretsManager()`` gives the current environment's implementation.

    What was read is remembered, for all secrets managers of one environment in this process. Each method is there
    twice: plain, and with the suffix ``_async``, which keeps the event loop free. All of them raise:

    - `InvalidKey`: the name is empty, longer than 255 characters, or has control characters;
    - `NotFound`: there is no such secret, or version, or field;
    - `AccessDenied`: the credentials do not allow it;
    - `CorruptData`: the value is empty, or is not what the method returns;
    - `Unavailable`: the store is away or too slow, and no value read before is recent enough;
    - `Unsupported`: the backend has no versions.

    Args:
        environment: Where the service runs; by default the current one.
    """

    cache_seconds: ClassVar[float] = 300.0
    """How long a value serves before the store is asked again. A rotation is seen after that."""
    stale_seconds: ClassVar[float] = 3600.0
    """How long a value serves, from when it was read, while the store is away."""
    deadline_seconds: ClassVar[float] = 10.0
    """How long a caller waits for the store."""

    def __new__(cls, environment: TotoEnvironment | None = None) -> SecretsManager:
        """Pick the class: as ``Path()`` is a ``PosixPath``, so this is the implementation of `environment`."""
        made: type[SecretsManager] = cls
        if cls is SecretsManager:
            made = implementation(SecretsManager, environment or current_environment())
        return object.__new__(made)

    def __init__(self, environment: TotoEnvironment | None = None) -> None:
        self.environment = environment or current_environment()
        with _caches_lock:
            self._cache = _caches.setdefault((type(self), self.environment), SecretCache(self._clock))

    def get_secret(self, name: str, *, version: str | None = None) -> str:
        """Return a secret as text.

        Args:
            name: Its name, without what the store puts before it.
            version: A version of the store's; by default the latest.
        """
        return _text(name, self.get_secret_bytes(name, version=version))

    async def get_secret_async(self, name: str, *, version: str | None = None) -> str:
        """Return a secret as text."""
        return _text(name, await self.get_secret_bytes_async(name, version=version))

    def get_secret_bytes(self, name: str, *, version: str | None = None) -> bytes:
        """Return a secret as it is stored, text or not."""
        found = self._look_up(name, version)
        if isinstance(found, bytes):
            return found
        try:
            return found.result(self.deadline_seconds)
        except TimeoutError:
            return self._give_up(name, version, found)

    async def get_secret_bytes_async(self, name: str, *, version: str | None = None) -> bytes:
        """Return a secret as it is stored, text or not."""
        found = self._look_up(name, version)
        if isinstance(found, bytes):
            return found
        try:
            # A caller that is cancelled takes the fetch from nobody: it runs in a thread that cannot be cancelled.
            return await asyncio.wait_for(asyncio.wrap_future(found), self.deadline_seconds)
        except TimeoutError:
            return self._give_up(name, version, found)

    def get_secret_json(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        """Return a secret that is a JSON document, or one field of it.

        Args:
            name: Its name.
            field: A field of the object that it must be; by default the whole document.
            version: A version of the store's; by default the latest.
        """
        return _json(name, field, self.get_secret_bytes(name, version=version))

    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        """Return a secret that is a JSON document, or one field of it."""
        return _json(name, field, await self.get_secret_bytes_async(name, version=version))

    def topic_identifier(self, secret: str, logical_name: str) -> str:
        """Return the provider's identifier of a topic, which is what the secret holds.

        Args:
            secret: The name of the secret.
            logical_name: The topic's name in code, for backends that can do without the secret.
        """
        return self.get_secret(secret)

    async def topic_identifier_async(self, secret: str, logical_name: str) -> str:
        """Return the provider's identifier of a topic, which is what the secret holds."""
        return await self.get_secret_async(secret)

    def _look_up(self, name: str, version: str | None) -> bytes | Future[bytes]:
        check_secret_name(name)
        if version is not None:
            check_secret_name(version, "secret version")
        return self._cache.get((name, version), lambda: self._checked(name, version), self._policy(version))

    def _checked(self, name: str, version: str | None) -> bytes:
        try:
            value = self._fetch(name, version)
        except BackendError:
            raise
        except Exception as error:
            # What a store's library says may quote the value, so it goes no further than its class.
            failure = type(error).__name__
        else:
            if value:
                return bytes(value)
            raise CorruptData(f"The secret {name!r} is empty.", resource=name)
        raise BackendError(f"The secret {name!r} cannot be read: {failure}.", resource=name)

    def _give_up(self, name: str, version: str | None, flight: Future[bytes]) -> bytes:
        value = self._cache.give_up((name, version), flight, self._policy(version))
        if value is None:
            raise Unavailable(
                f"The secret {name!r} could not be read within {self.deadline_seconds:g} s.", resource=name
            ) from None
        return value

    def _policy(self, version: str | None) -> CachePolicy:
        if version is not None and self.cache_seconds > 0 and self._pins(version):
            return CachePolicy(math.inf, math.inf)
        return CachePolicy(self.cache_seconds, self.stale_seconds)

    @staticmethod
    def _clock() -> float:
        return time.monotonic()

    # --- what a backend fills in ---

    def _pins(self, version: str) -> bool:
        """Tell whether this is one version for ever, which then is remembered for good; no label that moves on."""
        return True

    @backend_operation
    def _fetch(self, name: str, version: str | None) -> bytes:
        """Read a secret from the store: the latest version, or the one given. Called in a thread of its own.

        Raises BackendErrors that name the secret: NotFound, AccessDenied, Unavailable (served from what was read
        before), Unsupported (a version, where there are none). Bound the store's own time-outs: nobody waits for
        longer than `deadline_seconds`.
        """
        raise NotImplementedError


# The errors below are raised outside the handlers of what went wrong: a decoding error holds what it could not decode.


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        pass
    raise CorruptData(f"The secret {name!r} is not UTF-8 text: read it with get_secret_bytes.", resource=name)


def _json(name: str, field: str | None, value: bytes) -> Any:
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        pass
    else:
        if field is None:
            return document
        if isinstance(document, dict):
            if field in document:
                return document[field]
            raise NotFound(f"The secret {name!r} has no field {field!r}.", resource=name)
        raise CorruptData(f"The secret {name!r} is no JSON object, so it has no field {field!r}.", resource=name)
    raise CorruptData(f"The secret {name!r} is no JSON document.", resource=name)
