"""Fetch and cache the public keys of a token issuer (RFC 7517).

A token with an unknown key is rejected only if the keys were fetched after the token arrived. During the cooldown
between fetches the answer is 503 with Retry-After instead, because the key may have been published since: a rejection
would make a broker drop the message, and log a user out right after a rotation.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from totoms.auth.discovery import LOOPBACK, configuration_url, keys_uri
from totoms.errors import Undecidable
from totoms.fetching import Deadline
from totoms.logging.logger import TotoLogger
from totoms.single_flight import SingleFlight
from totoms.telemetry import state as telemetry
from totoms.threads import start_thread

COOLDOWN: Final = 60.0
"""The least seconds between a fetch and the next."""
FAILED_COOLDOWN: Final = 10.0
"""The least seconds between a failed fetch and the next."""
REFRESH_AFTER: Final = 300.0
"""Seconds after which keys are fetched again in the background, and so for which a withdrawn key is still accepted."""
USABLE_FOR: Final = 86_400.0
"""Seconds for which cached keys are used while the key server is unavailable."""
TIMEOUT: Final = 5.0
"""The most seconds of a whole fetch: connecting, TLS, the headers and the body."""
MAX_BYTES: Final = 512 * 1024
MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
"""RFC 7518 section 3.4."""
MAX_SHOWN: Final = 64


class KeySet:
    """The keys of one issuer, for one algorithm.

    Args:
        uri: Where the keys are published: https, or http on this machine. None to find it by OpenID Connect Discovery.
        algorithm: The signature algorithm (RFC 7518 section 3.1).
        on_rotated: Called when a known key has been withdrawn.
        clock: Returns monotonic seconds.
        issuer: The issuer, for discovery.
    """

    def __init__(
        self,
        uri: str | None,
        algorithm: str,
        *,
        issuer: str = "",
        on_rotated: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uri = configuration_url(issuer) if uri is None else uri
        self._issuer = issuer if uri is None else ""
        self._algorithm = algorithm
        self._on_rotated = on_rotated
        self._fetching = SingleFlight[dict[str | None, Any]](COOLDOWN, FAILED_COOLDOWN, clock=clock)

    def known(self, kid: str | None) -> Any | None:
        """Return the cached key `kid`, or None. Start a fetch in the background if the keys are old."""
        key = self._keys.get(kid)
        age = self._fetching.age()
        if key is None or age > USABLE_FOR:
            return None
        if age > REFRESH_AFTER and not self._fetching.cooldown_left():
            self._fetching.in_task(self._fetch)
        return key

    async def find(self, kid: str | None) -> Any | None:
        """Return the key `kid`, or None if a fetch during this call did not find it.

        Raises:
            Undecidable: The key is unknown, and the fetch failed or must wait for the cooldown.
        """
        key = self.known(kid)
        if key is not None:
            return key
        fetched = await self._fetching.attempt(self._fetch)
        key = self.known(kid)
        if key is None and not fetched:
            retry_after = max(1, math.ceil(self._fetching.cooldown_left()))
            raise Undecidable("The caller's token cannot be verified now.", retry_after=retry_after)
        return key

    @property
    def _keys(self) -> dict[str | None, Any]:
        return self._fetching.result or {}

    async def _fetch(self) -> dict[str | None, Any]:
        try:
            # A daemon thread, because asyncio's pool would delay the end of the process.
            thread = start_thread(self._download, "totoms-keys")
            async with asyncio.timeout(TIMEOUT + 0.5):
                keys = await asyncio.wrap_future(thread)
        except Exception as error:  # whatever the key server sends
            TotoLogger.get_instance().log("", f"Cannot fetch the keys of {self.uri}", "WARNING", error)
            telemetry.count_key_fetch(urlsplit(self.uri).hostname or "", failed=True)
            raise
        telemetry.count_key_fetch(urlsplit(self.uri).hostname or "", failed=False)
        if any(not _published(kid, key, keys) for kid, key in self._keys.items()):
            self._on_rotated()
        return keys

    def _download(self) -> dict[str | None, Any]:
        ends = time.monotonic() + TIMEOUT
        document = download(self.uri)
        if self._issuer:
            document = download(keys_uri(document, self._issuer), seconds=max(0.1, ends - time.monotonic()))
        return prepare_keys(document, self._algorithm)


def _published(kid: str | None, key: Any, keys: dict[str | None, Any]) -> bool:
    # A key without an id, or a single key, may have an id now.
    return any(_same(key, new) for new_kid, new in keys.items() if kid is None or kid == new_kid)


def _same(known: Any, new: Any) -> bool:
    if hasattr(known, "public_numbers") and hasattr(new, "public_numbers"):
        return bool(known.public_numbers() == new.public_numbers())
    return bool(known == new)


def prepare_keys(document: bytes, algorithm: str) -> dict[str | None, Any]:
    """Return the usable keys of a JWK set by their id.

    Leave out keys that are too short, on another curve, for another algorithm, for encryption, or not for verifying
    (``key_ops``, RFC 7517 section 4.3). The id None, for tokens that name no key, has the single key without an id, or
    the only key of the set.

    Raises:
        ValueError: It is not a JWK set, has two keys with the same id, or has no usable key.
    """
    import orjson
    from jwt.algorithms import get_default_algorithms

    signature = get_default_algorithms()[algorithm]
    parsed = orjson.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWK set")
    keys: dict[str | None, Any] = {}
    without_id: list[Any] = []
    for entry in entries[:MAX_KEYS]:
        if not _verifies(entry, algorithm):
            continue
        kid = entry.get("kid")
        try:
            key = signature.from_jwk(entry)
        except Exception:  # noqa: S112 - one malformed key must not hide the good ones
            continue
        if not _strong(key, algorithm) or not isinstance(kid, str | None):
            continue
        if kid is None:
            without_id.append(key)
        elif kid in keys and not _same(keys[kid], key):
            raise ValueError(f"two keys have the id {kid[:MAX_SHOWN]!r}")
        else:
            keys[kid] = key
    if len(without_id) == 1:
        keys[None] = without_id[0]
    elif len(keys) == 1 and not without_id:
        keys[None] = next(iter(keys.values()))
    if not keys:
        raise ValueError(f"no key is usable for {algorithm}")
    return keys


def _verifies(entry: Any, algorithm: str) -> bool:
    if not isinstance(entry, dict) or "d" in entry or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return False
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
    )


def _strong(key: Any, algorithm: str) -> bool:
    curve = getattr(key, "curve", None)
    if curve is not None:
        return bool(curve.name == _CURVES.get(algorithm))
    return not hasattr(key, "key_size") or key.key_size >= MIN_RSA_BITS


def download(
    uri: str, *, seconds: float | None = None, most_bytes: int | None = None, trusted: str | None = None
) -> bytes:
    """Fetch `uri`, with limits on size and total time, and without redirects. Blocks: call it in a worker thread.

    Trust the system's certificates, or those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` instead, and those of
    ``REQUESTS_CA_BUNDLE``. Use the environment's proxies, except for this machine.

    Args:
        uri: An address with https, or with http on this machine.
        seconds: The limit for the whole exchange; by default `TIMEOUT`.
        most_bytes: The limit for the body; by default `MAX_BYTES`.
        trusted: A file or folder with further certificates.

    Raises:
        OSError, ValueError: The fetch failed.
    """
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
            return None  # urllib then raises an HTTPError

    parts = urlsplit(uri)
    loopback = parts.hostname in LOOPBACK
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("keys are fetched over https only")
    seconds = TIMEOUT if seconds is None else seconds
    with Deadline(seconds) as deadline:
        handlers: list[Any] = [NoRedirect(), *deadline.handlers(trusted)]
        if loopback:
            handlers.append(urllib.request.ProxyHandler({}))
        limit = MAX_BYTES if most_bytes is None else most_bytes
        try:
            with urllib.request.build_opener(*handlers).open(uri, timeout=seconds) as answer:
                status, body = answer.status, bytes(answer.read(limit + 1))
        except urllib.error.HTTPError as error:
            status, body = error.code, b""
            error.close()
        if status != 200:
            raise ValueError(f"status {status}")
        if len(body) > limit:
            raise ValueError("too large")
        return body
