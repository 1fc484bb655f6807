"""Parse and create bearer tokens (RFC 6750) that are signed JWTs (RFC 7519).

A token never chooses how it is verified: each verifier (:mod:`totoms.auth.verifiers`) has one algorithm and its own
keys, and ignores the keys that a header may name (``jwk``, ``jku``, ``x5u``, ``x5c``).
"""

from __future__ import annotations

import binascii
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from totoms.errors import ConfigurationError, Unauthorized

if TYPE_CHECKING:
    from totoms.controller_config import TotoControllerConfig

MAX_TOKEN_BYTES: Final = 8192
"""Longer tokens are rejected without parsing."""
MAX_DEPTH: Final = 32
MAX_KID: Final = 256
MIN_KEY_BYTES: Final = 32
"""The least length of an HS256 key (RFC 7518 section 3.2)."""
LEEWAY: Final = 10.0
"""Seconds by which an issuer's clock may be ahead."""
LATEST: Final = 253_402_300_800.0
"""The end of the year 9999: later times are not valid dates."""
SERVICE_USER: Final = "toto-service"
SERVICE_LIFETIME: Final = 3 * 3600

_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed, unverified token.

    Attributes:
        algorithm: The ``alg`` header.
        kid: The ``kid`` header, or None.
        claims: The payload.
        signed: The signed bytes.
        signature: The signature.
        type: The ``typ`` header, or None.
    """

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes
    type: str | None = None


def parse_token(raw: bytes) -> Token:
    """Parse a compact JWT.

    Raises:
        Unauthorized: It is malformed, too long, nested too deeply, or has a critical header.
    """
    if len(raw) > MAX_TOKEN_BYTES:
        raise Unauthorized("The token is too long.")
    match = _COMPACT.fullmatch(raw)
    if match is None:
        raise Unauthorized("The token is malformed.")
    header = _object(match[1])
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    # RFC 7515 section 4.1.11: a critical extension that is not understood must be rejected; none is understood.
    if not isinstance(algorithm, str) or "crit" in header or header.get("b64", True) is not True:
        raise Unauthorized("The token is malformed.")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        raise Unauthorized("The token is malformed.")
    if not isinstance(kind, str | None):
        raise Unauthorized("The token is malformed.")
    return Token(algorithm, kid, _object(match[2]), raw[: match.end(2)], _decode(match[3]), kind)


def _decode(segment: bytes) -> bytes:
    try:
        return binascii.a2b_base64(segment.translate(_URL_SAFE) + b"=" * (-len(segment) % 4))
    except binascii.Error:
        raise Unauthorized("The token is malformed.") from None


_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def _object(segment: bytes) -> dict[str, Any]:
    text = _decode(segment)
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Unauthorized("The token is malformed.")
    try:
        value = orjson.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Unauthorized("The token is malformed.")
    return value


def _depth(text: bytes) -> int:
    # Brackets within strings count as well, which only makes the check stricter.
    depth = deepest = 0
    for byte in text:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def check_times(claims: dict[str, Any], now: float) -> float:
    """Return when the claims expire, in seconds since the epoch.

    Raises:
        Unauthorized: ``exp`` is missing, past or not a date; ``nbf`` or ``iat`` is in the future or not a date.
    """
    expires = _date(claims.get("exp"))
    if expires is None:
        raise Unauthorized("The token is malformed.")
    if expires <= now:
        raise Unauthorized("The token has expired.")
    for name in ("nbf", "iat"):
        value = claims.get(name)
        if value is not None:
            date = _date(value)
            if date is None or date > now + LEEWAY:
                raise Unauthorized("The token is not valid yet.")
    return expires


def _date(value: Any) -> float | None:
    # By exact type: True is an int, and a numeric string is not a NumericDate (RFC 7519 section 2).
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value < LATEST:
        return None
    return float(value)


def hmac_key(key: object, name: str = "jwt-signing-key") -> bytes:
    """Return the key for HS256 as bytes.

    Args:
        key: The value of the secret.
        name: Its name, for the error.

    Raises:
        ConfigurationError: It is too short, or looks like a public key. The message does not contain the key.
    """
    if not isinstance(key, str):
        raise ConfigurationError("The JWT signing key must be a string.")
    raw = key.encode("utf-8", "surrogatepass")
    start = key.lstrip()[:32]
    if start.startswith(("-----BEGIN", "ssh-", "ecdsa-sha2-", '{"', "{'")):
        # With a public key as the secret, everyone could sign.
        raise ConfigurationError(
            "The JWT signing key looks like a public or private key file; HS256 needs a random secret."
        )
    if len(raw) < MIN_KEY_BYTES:
        raise ConfigurationError(
            f"The JWT signing key (secret {name!r}) has {len(raw)} bytes; "
            f"HS256 needs at least {MIN_KEY_BYTES} (RFC 7518 section 3.2)."
        )
    return raw


def make_token(key: str, user: str, lifetime: float = 3600.0, claims: Mapping[str, Any] | None = None) -> str:
    """Create a token that `OwnTokens` accepts.

    Args:
        key: The service's signing key (secret ``jwt-signing-key``).
        user: The value of `UserContext.email`.
        lifetime: Seconds until it expires.
        claims: Further claims, such as ``{"roles": ["admin"], "scope": "posts:write"}``.

    Raises:
        ConfigurationError: The key is too short, or looks like a public key; or `claims` has one that the other
            arguments set.
    """
    import jwt

    own = {"user": user, "authProvider": "toto", "exp": int(time.time() + lifetime)}
    for name in claims or ():
        if name in own:
            raise ConfigurationError(f"The claim {name!r} cannot be given: totoms sets it.")
    return jwt.encode({**(claims or {}), **own}, hmac_key(key), algorithm="HS256")


def new_toto_service_token(config: TotoControllerConfig) -> str:
    """Create a token for a call to another service: user ``toto-service``, valid for three hours.

    Args:
        config: The service's configuration, with the signing key.

    Raises:
        ConfigurationError: There is no signing key, or it is too short.
    """
    if config.jwt_key is None:
        raise ConfigurationError("There is no JWT signing key (secret 'jwt-signing-key') to create a token with.")
    return make_token(config.jwt_key, SERVICE_USER, SERVICE_LIFETIME)
