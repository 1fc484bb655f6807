"""Authenticate a request: from the ``Authorization`` header to a `UserContext`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from totoms.auth.signing_keys import SigningKeys
from totoms.auth.tokens import MAX_TOKEN_BYTES, parse_token
from totoms.auth.user import UserContext
from totoms.auth.verifiers import OIDCTokens, OwnTokens, Verifier
from totoms.errors import ConfigurationError, Unauthorized, Undecidable
from totoms.telemetry import state as telemetry

if TYPE_CHECKING:
    from totoms.controller_config import TotoControllerConfig
    from totoms.declaration.api import APIConfiguration

CACHE_SIZE: Final = 10_000
"""The most verified tokens that are cached; beyond that, the half unused for longest is dropped."""
CACHE_SECONDS: Final = 300.0
"""Seconds after which a cached token is verified again, with the keys that its issuer publishes by then."""

_Entry = tuple[UserContext, float, float]
"""The caller, and the expiry by the wall clock and by the monotonic clock."""


class Authenticator:
    """Authenticates requests: a token is valid if one of the configured verifiers accepts it.

    A verified token is cached, as a hash, for `CACHE_SECONDS` but not beyond its expiry.

    Args:
        config: The service's configuration; `jwt_key` and `jwt_expected_audience` enable their verifiers.
        api: The API configuration, with further issuers.
        verifiers: Use these instead.

    Raises:
        ConfigurationError: The signing key is unsafe.
    """

    def __init__(
        self,
        config: TotoControllerConfig | None = None,
        api: APIConfiguration | None = None,
        *,
        verifiers: Sequence[Verifier] | None = None,
    ) -> None:
        # Two generations: dropping the old one at once is cheaper than finding the oldest entry each time.
        self._young: dict[bytes, _Entry] = {}
        self._old: dict[bytes, _Entry] = {}
        self._verifiers = list(verifiers) if verifiers is not None else self._configured(config, api)

    def _configured(self, config: TotoControllerConfig | None, api: APIConfiguration | None) -> list[Verifier]:
        verifiers: list[Verifier] = []
        # None means that the secret does not exist; an empty secret is a mistake that must not disable a verifier.
        if config is not None and config.jwt_key is not None:
            keys = SigningKeys(
                config.jwt_key,
                config.jwt_key_previous,
                read=config._signing_keys_reader(),
                on_withdrawn=self.forget,
            )
            verifiers.append(OwnTokens(keys))
        if config is not None and config.jwt_expected_audience is not None:
            if not config.jwt_expected_audience:
                raise ConfigurationError("The expected audience (secret 'toto-expected-audience') is empty.")
            verifiers.append(OIDCTokens.google(config.jwt_expected_audience, on_rotated=self.forget))
        for issuer in api.oidc_issuers if api is not None else ():
            verifiers.append(OIDCTokens.configured(issuer, on_rotated=self.forget))
        return verifiers

    def __bool__(self) -> bool:
        """Whether any token can be verified."""
        return bool(self._verifiers)

    def cached(self, authorization: bytes) -> UserContext | None:
        """Return the user of a header value that is in the cache and has not expired, else None.

        Args:
            authorization: The raw value of the ``Authorization`` header.
        """
        digest = hashlib.sha256(authorization).digest()
        entry = self._young.get(digest)
        if entry is None:
            entry = self._old.get(digest)
            if entry is None:
                return None
            self._keep(digest, entry)
        # Both clocks, because the wall clock may be set back.
        if entry[1] <= time.time() or entry[2] <= time.monotonic():
            return None
        return entry[0].copied()

    async def authenticate(self, authorization: Sequence[bytes]) -> UserContext:
        """Return the user that the token names.

        Args:
            authorization: The values of all ``Authorization`` headers.

        Raises:
            Unauthorized: There is no valid token, or more than one header.
            Undecidable: The token cannot be verified now.
        """
        if not authorization:
            raise Unauthorized("A bearer token is required.")
        if len(authorization) > 1:
            raise Unauthorized("There is more than one Authorization header.")
        header = authorization[0]
        user = self.cached(header)
        if user is not None:
            return user
        try:
            user = await self._verify(header)
        except Unauthorized:
            _count("rejected")
            raise
        except Undecidable:
            _count("undecided")
            raise
        _count("accepted")
        return user

    async def _verify(self, header: bytes) -> UserContext:
        if len(header) > MAX_TOKEN_BYTES:
            raise Unauthorized("The token is too long.")
        scheme, _, raw = header.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("A bearer token is required.")
        token = parse_token(raw.strip(b" "))
        now = time.time()
        refusal: tuple[int, Unauthorized] | None = None
        undecided: Undecidable | None = None
        for verifier in self._verifiers:
            try:
                user, expires = await verifier.verify(token, now)
            except Unauthorized as error:
                # Log the error of the verifier that the token was most likely meant for.
                nearness = verifier.nearness(token)
                if refusal is None or nearness > refusal[0]:
                    refusal = nearness, error
            except Undecidable as error:
                undecided = error
            else:
                until = min(expires, now + CACHE_SECONDS), time.monotonic() + CACHE_SECONDS
                self._keep(hashlib.sha256(header).digest(), (user, *until))
                return user.copied()
        if undecided is not None:
            raise undecided
        raise refusal[1] if refusal is not None else Unauthorized("The service accepts no tokens.")

    def forget(self) -> None:
        """Drop all cached tokens, because an issuer has withdrawn a key that may have signed some."""
        self._young, self._old = {}, {}

    def _keep(self, digest: bytes, entry: _Entry) -> None:
        if len(self._young) >= CACHE_SIZE // 2:
            self._old, self._young = self._young, {}
        self._young[digest] = entry


def _count(outcome: str) -> None:
    if telemetry.active is not None:
        telemetry.active.instruments.service.verified(outcome)
