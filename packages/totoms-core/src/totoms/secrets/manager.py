"""The secrets manager: the public methods for services, and the operation that a backend implements.

A secret's value never appears in a log line, a repr or an exception; errors only name the secret.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from abc import ABC
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final

import orjson

from totoms.environment import TotoEnvironment, current_environment, implementation
from totoms.errors import BackendError, CorruptData, NotFound, Unavailable
from totoms.logging.masking import keep_identifier, remember_secret
from totoms.names import check_secret_name
from totoms.operations import backend_operation
from totoms.secrets.cache import CachePolicy, SecretCache
from totoms.secrets.trimming import strip_ends
from totoms.telemetry import state as telemetry

_caches: Final[dict[tuple[type[Any], TotoEnvironment], SecretCache]] = {}
_caches_lock: Final = threading.Lock()


class SecretsManager(ABC):  # noqa: B024 - its abstract method is marked by backend_operation
    """Reads secrets. ``SecretsManager()`` returns the implementation for the environment.

    Values are cached for all secrets managers of one environment in this process. Each method exists in two forms:
    blocking, and with the suffix ``_async`` for coroutines. All of them raise:

    - `InvalidKey`: the name is empty, longer than 255 characters, or has control characters;
    - `NotFound`: the secret, version or field does not exist;
    - `AccessDenied`: the credentials do not allow it;
    - `CorruptData`: the value is empty, or cannot be decoded into what the method returns;
    - `Unavailable`: the store is unavailable or too slow, and no cached value is recent enough;
    - `Unsupported`: the backend has no versions.

    Args:
        environment: Where the service runs; by default the current one.
    """

    cache_seconds: ClassVar[float] = 300.0
    """How long to serve a value before it is fetched again, and so how long a rotation may go unnoticed."""
    stale_seconds: ClassVar[float] = 3600.0
    """How long after its fetch to serve a value while the store is unavailable."""
    deadline_seconds: ClassVar[float] = 10.0
    """How long a caller waits for the store."""

    def __new__(cls, environment: TotoEnvironment | None = None) -> SecretsManager:
        """Return the implementation for `environment`, as ``Path()`` returns a ``PosixPath``."""
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
            name: Its name, without the store's own prefix.
            version: The store's id of a version; by default the latest.
        """
        return _text(name, self.get_secret_bytes(name, version=version))

    async def get_secret_async(self, name: str, *, version: str | None = None) -> str:
        """Return a secret as text."""
        return _text(name, await self.get_secret_bytes_async(name, version=version))

    def get_secret_bytes(self, name: str, *, version: str | None = None) -> bytes:
        """Return a secret as the stored bytes."""
        found = self._look_up(name, version)
        if isinstance(found, bytes):
            return found
        try:
            with _span(name):
                return found.result(self.deadline_seconds)
        except (TimeoutError, Unavailable) as error:
            return self._stale_value(name, version, found, error)

    async def get_secret_bytes_async(self, name: str, *, version: str | None = None) -> bytes:
        """Return a secret as the stored bytes."""
        return await self._wait(name, version, self._look_up(name, version))

    def get_secret_json(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        """Return a secret that is a JSON document, or one field of it.

        Args:
            name: Its name.
            field: A field of the document, which must be an object; by default the whole document.
            version: The store's id of a version; by default the latest.
        """
        return _json(name, field, self.get_secret_bytes(name, version=version))

    async def get_secret_json_async(self, name: str, field: str | None = None, *, version: str | None = None) -> Any:
        """Return a secret that is a JSON document, or one field of it."""
        return _json(name, field, await self.get_secret_bytes_async(name, version=version))

    def topic_identifier(self, secret: str, logical_name: str) -> str:
        """Return the provider's identifier of a topic: the value of the secret, without white space at its ends.

        Args:
            secret: The name of the secret.
            logical_name: The topic's name in code, for backends that do not need the secret.
        """
        return self.get_identifier(secret)

    async def topic_identifier_async(self, secret: str, logical_name: str) -> str:
        """Return the provider's identifier of a topic: the value of the secret, without white space at its ends."""
        return await self.get_identifier_async(secret)

    def get_identifier(self, name: str) -> str:
        """Return a value that is stored like a secret but is none, such as a host, without white space at its ends.

        It is not masked in the log.
        """
        self._keep_identifier(name)
        return strip_ends(self.get_secret(name), f"the secret {name!r}")

    async def get_identifier_async(self, name: str) -> str:
        """Return a value that is stored like a secret but is none; see :meth:`get_identifier`."""
        self._keep_identifier(name)
        return strip_ends(await self.get_secret_async(name), f"the secret {name!r}")

    def _keep_identifier(self, name: str) -> None:
        keep_identifier((type(self), self.environment, name, None))

    async def _get_anew(self, name: str) -> str:
        """Return a secret as text, as the store has it now; while the store is unavailable, a cached value."""
        return _text(name, await self._wait(name, None, self._look_up(name, None, anew=True)))

    def _look_up(self, name: str, version: str | None, *, anew: bool = False) -> bytes | Future[bytes]:
        check_secret_name(name)
        if version is not None:
            check_secret_name(version, "secret version")
        policy = self._policy(version)
        return self._cache.get((name, version), lambda: self._checked(name, version), policy, anew=anew)

    async def _wait(self, name: str, version: str | None, found: bytes | Future[bytes]) -> bytes:
        if isinstance(found, bytes):
            return found
        try:
            # Cancelling one caller does not cancel the fetch for the others: it runs in a thread.
            with _span(name):
                return await asyncio.wait_for(asyncio.wrap_future(found), self.deadline_seconds)
        except (TimeoutError, Unavailable) as error:
            return self._stale_value(name, version, found, error)

    def _checked(self, name: str, version: str | None) -> bytes:
        try:
            value = self._fetch(name, version)
        except BackendError:
            raise
        except Exception as error:
            # The SDK's message may quote the value, so only the error's class is passed on.
            failure = type(error).__name__
        else:
            if value:
                remember_secret((type(self), self.environment, name, version), bytes(value))
                return bytes(value)
            raise CorruptData(f"The secret {name!r} is empty.", resource=name)
        raise BackendError(f"The secret {name!r} cannot be read: {failure}.", resource=name)

    def _stale_value(self, name: str, version: str | None, fetch: Future[bytes], error: Exception) -> bytes:
        value = self._cache.stale((name, version), fetch, self._policy(version))
        if value is not None:
            return value
        if isinstance(error, Unavailable):
            raise error
        raise Unavailable(
            f"The secret {name!r} could not be read within {self.deadline_seconds:g} s.", resource=name
        ) from None

    def _policy(self, version: str | None) -> CachePolicy:
        if version is not None and self.cache_seconds > 0 and self._pins(version):
            return CachePolicy(math.inf, math.inf)
        return CachePolicy(self.cache_seconds, self.stale_seconds)

    @staticmethod
    def _clock() -> float:
        return time.monotonic()

    # --- implemented by a backend ---

    def _pins(self, version: str) -> bool:
        """Return whether `version` is immutable, and so cached forever, rather than a label that can move."""
        return True

    @backend_operation
    def _fetch(self, name: str, version: str | None) -> bytes:
        """Read a secret from the store, by default its latest version. Called in a thread of its own.

        Raise BackendErrors that name the secret: NotFound, AccessDenied, Unavailable (a cached value is served
        instead), Unsupported (for a version, if there are none). Set the store's time-outs to at most
        `deadline_seconds`.
        """
        raise NotImplementedError


# Raise errors outside the except blocks below: a decoding error holds the secret, and would become the context.


def _span(name: str) -> AbstractContextManager[object]:
    """Return a span around a read from the store. A cached value has none."""
    return telemetry.span("secrets get", {"totoms.secret.name": name})


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
        raise CorruptData(f"The secret {name!r} is not a JSON object, so it has no field {field!r}.", resource=name)
    raise CorruptData(f"The secret {name!r} is not a JSON document.", resource=name)
