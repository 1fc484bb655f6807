"""Callers: from the ``Authorization`` header to a `UserContext`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from totoms.errors import ConfigurationError, Unauthorized, Undecidable
from totoms.execution import UserContext
from totoms.tokens import MAX_TOKEN_BYTES, parse_token
from totoms.verifiers import OIDCTokens, OwnTokens, Verifier

if TYPE_CHECKING:
    from totoms.config import TotoControllerConfig
    from totoms.configuration import APIConfiguration

REMEMBERED: Final = 10_000
"""Verified tokens that are remembered at most; the longest unused half is let go."""


class Authenticator:
    """Tells who calls. Every configured verifier is asked; a token passes when one accepts it wholly.

    A verified token is remembered, as a hash, until it expires, so that the next request with it costs little.

    Args:
        config: The service's configuration: `jwt_key` and `jwt_expected_audience` decide which verifiers there are.
        api: Names further issuers.
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
        # Two generations: dropping the old one at once costs less than finding the oldest entry each time.
        self._young: dict[bytes, tuple[str | None, str, float]] = {}
        self._old: dict[bytes, tuple[str | None, str, float]] = {}
        self._verifiers = list(verifiers) if verifiers is not None else self._configured(config, api)

    def _configured(self, config: TotoControllerConfig | None, api: APIConfiguration | None) -> list[Verifier]:
        verifiers: list[Verifier] = []
        # None means that there is no such secret; an empty one is a mistake that must not turn a verifier off.
        if config is not None and config.jwt_key is not None:
            verifiers.append(OwnTokens(config.jwt_key))
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

    def remembered(self, authorization: bytes) -> UserContext | None:
        """Return who sent this header value before, if it was verified then and has not expired.

        Args:
            authorization: The value of the header, as it came.
        """
        digest = hashlib.sha256(authorization).digest()
        entry = self._young.get(digest)
        if entry is None:
            entry = self._old.get(digest)
            if entry is None:
                return None
            self._keep(digest, entry)
        if entry[2] <= time.time():
            return None
        # A new object each time: a delegate may change its own.
        return UserContext(entry[0], entry[1])

    async def authenticate(self, authorization: Sequence[bytes]) -> UserContext:
        """Return who calls.

        Args:
            authorization: The values of all ``Authorization`` headers; two are one too many.

        Raises:
            Unauthorized: There is no valid token.
            Undecidable: Whether it is valid cannot be told now.
        """
        if not authorization:
            raise Unauthorized("A bearer token is required.")
        if len(authorization) > 1:
            raise Unauthorized("There is more than one Authorization header.")
        header = authorization[0]
        user = self.remembered(header)
        if user is not None:
            return user
        if len(header) > MAX_TOKEN_BYTES:
            raise Unauthorized("The token is too long.")
        scheme, _, raw = header.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("A bearer token is required.")
        token = parse_token(raw.strip(b" "))
        now = time.time()
        refusal: Unauthorized | None = None
        undecided: Undecidable | None = None
        for verifier in self._verifiers:
            try:
                user, expires = await verifier.verify(token, now)
            except Unauthorized as error:
                refusal = refusal or error
            except Undecidable as error:
                undecided = error
            else:
                self._keep(hashlib.sha256(header).digest(), (user.email, user.auth_provider, expires))
                return user
        raise undecided or refusal or Unauthorized("No token is accepted here.")

    def forget(self) -> None:
        """Forget all verified tokens: a key that may have signed some of them was withdrawn."""
        self._young, self._old = {}, {}

    def _keep(self, digest: bytes, entry: tuple[str | None, str, float]) -> None:
        if len(self._young) >= REMEMBERED // 2:
            self._old, self._young = self._young, {}
        self._young[digest] = entry
