"""Public keys of a token issuer (RFC 7517): fetched off the event loop, cached, and asked for seldom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from totoms.errors import Undecidable
from totoms.logging import TotoLogger

COOLDOWN: Final = 60.0
"""Seconds between two fetches, however many unknown key ids are seen."""
FAILED_COOLDOWN: Final = 10.0
"""Seconds until the next fetch after one that failed."""
REFRESH_AFTER: Final = 3600.0
"""Seconds after which keys are fetched anew, in the background."""
USABLE_FOR: Final = 86_400.0
"""Seconds that known keys serve while the key server is away."""
TIMEOUT: Final = 5.0
"""Seconds that a fetch may take."""
MAX_BYTES: Final = 512 * 1024
MAX_KEYS: Final = 100
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class KeySet:
    """The keys of one issuer, prepared for one algorithm.

    Args:
        uri: Where the key server publishes them. https, or this machine.
        algorithm: The one signature algorithm (RFC 7518 section 3.1).
        on_rotated: Called when a key that was known is gone.
        clock: Seconds, growing.
    """

    def __init__(
        self, uri: str, algorithm: str, *, on_rotated: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.uri = uri
        self._algorithm = algorithm
        self._on_rotated = on_rotated
        self._clock = clock
        self._keys: dict[str | None, Any] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    def known(self, kid: str | None) -> Any | None:
        """Return the cached key `kid`, or None. Starts a fetch in the background when the keys are old."""
        key = self._keys.get(kid)
        if key is None or self._fetched is None:
            return None
        age = self._clock() - self._fetched
        if age > USABLE_FOR:
            return None
        if age > REFRESH_AFTER and self._may_fetch():
            self._start_fetch()
        return key

    async def find(self, kid: str | None) -> Any | None:
        """Return the key `kid`, or None when the issuer has none such.

        Raises:
            Undecidable: The key is unknown and the key server cannot be asked.
        """
        key = self.known(kid)
        if key is not None:
            return key
        if self._may_fetch():
            self._start_fetch()
        if self._fetching is not None:
            # wait() leaves the fetch running when this caller goes away: others wait for it too.
            await asyncio.wait({self._fetching}, timeout=TIMEOUT + 1)
        key = self.known(kid)
        if key is None and (self._failed or self._fetched is None):
            raise Undecidable("The caller's token cannot be verified now.", retry_after=self._wait())
        return key

    def _may_fetch(self) -> bool:
        return (self._fetching is None or self._fetching.done()) and self._wait() == 0

    def _wait(self) -> int:
        if self._tried is None:
            return 0
        cooldown = FAILED_COOLDOWN if self._failed else COOLDOWN
        left = self._tried + cooldown - self._clock()
        return max(0, int(left) + 1) if left > 0 else 0

    def _start_fetch(self) -> None:
        self._tried = self._clock()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            keys = await asyncio.to_thread(self._download)
        except Exception as error:  # whatever a key server does, it must not end the service
            self._failed = True
            TotoLogger.get_instance().log("", f"Cannot fetch the keys of {self.uri}", "WARNING", error)
            return
        known = [(kid, key) for kid, key in self._keys.items() if kid is not None]
        gone = any(kid not in keys or not _same(key, keys[kid]) for kid, key in known)
        self._keys, self._fetched, self._failed = keys, self._clock(), False
        if gone:
            self._on_rotated()

    def _download(self) -> dict[str | None, Any]:
        return prepare_keys(download(self.uri), self._algorithm)


def _same(known: Any, new: Any) -> bool:
    return bool(known.public_numbers() == new.public_numbers()) if hasattr(known, "public_numbers") else known == new


def prepare_keys(document: bytes, algorithm: str) -> dict[str | None, Any]:
    """Return the keys of a JWK set by their id, ready to verify with. Unusable ones are left out.

    A set of one key is also found under None, for tokens that do not name their key.

    Raises:
        ValueError: It is no JWK set, or holds no usable key.
    """
    import orjson
    from jwt.algorithms import get_default_algorithms

    signature = get_default_algorithms()[algorithm]
    parsed = orjson.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWK set")
    keys: dict[str | None, Any] = {}
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
            continue
        kid = entry.get("kid")
        if not isinstance(kid, str) or "d" in entry or entry.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            keys[kid] = signature.from_jwk(entry)
        except Exception:  # noqa: S112 - one malformed key must not hide the good ones
            continue
    if not keys:
        raise ValueError("no usable key")
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    return keys


def download(uri: str) -> bytes:
    """Fetch `uri`: no redirects, bounded in size and time. Blocks: call it in a worker thread.

    Raises:
        OSError, ValueError: It cannot be had.
    """
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
            return None  # urllib then raises the redirect as an HTTPError

    parts = urlsplit(uri)
    loopback = parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("keys are fetched over https only")
    handlers: list[Any] = [NoRedirect()]
    if loopback:
        handlers.append(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + TIMEOUT
    chunks: list[bytes] = []
    size = 0
    with urllib.request.build_opener(*handlers).open(uri, timeout=TIMEOUT) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        while chunk := answer.read1(65_536):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                raise ValueError("too large")
            if time.monotonic() > deadline:
                raise TimeoutError("too slow")
    return b"".join(chunks)
