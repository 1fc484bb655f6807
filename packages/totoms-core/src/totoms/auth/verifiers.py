"""Verify tokens: one verifier per issuer, each with one algorithm and its own keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from totoms.auth.grants import roles_in, scopes_in
from totoms.auth.jwks import KeySet
from totoms.auth.signing_keys import SigningKeys
from totoms.auth.token_use import access_audience, check_id_token, issuers_of
from totoms.auth.tokens import Token, check_times
from totoms.auth.user import UserContext
from totoms.errors import Unauthorized

if TYPE_CHECKING:
    from totoms.declaration.issuers import OIDCIssuer

OWN_ISSUER: Final = "toto"
GOOGLE_ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
GOOGLE_KEYS: Final = "https://www.googleapis.com/oauth2/v3/certs"
_MAX_AUDIENCES: Final = 16
_MAX_USER: Final = 1024


class Verifier(ABC):
    """Verifies the tokens of one issuer."""

    @abstractmethod
    async def verify(self, token: Token, now: float) -> tuple[UserContext, float]:
        """Return the user, and when the token expires in seconds since the epoch.

        Args:
            token: A parsed token.
            now: Seconds since the epoch.

        Raises:
            Unauthorized: It is not a valid token of this issuer.
            Undecidable: The issuer's keys cannot be fetched now.
        """

    def nearness(self, token: Token) -> int:
        """Return how likely `token` was meant for this verifier, to log the error of the likeliest one."""
        return 0


class OwnTokens(Verifier):
    """The service's own tokens: HS256, claims ``user``, ``authProvider`` ("toto") and ``exp``; ``scope``, ``roles``.

    Args:
        key: The secret ``jwt-signing-key``, or the keys.
    """

    def __init__(self, key: object) -> None:
        self._keys = key if isinstance(key, SigningKeys) else SigningKeys(key)

    async def verify(self, token: Token, now: float) -> tuple[UserContext, float]:
        """See `Verifier`."""
        if token.algorithm != "HS256":
            raise Unauthorized("The token has another algorithm.")
        # The claims of a token whose signature fits no known key are checked before the store is asked.
        known = self._keys.verify(token.signed, token.signature)
        claims = token.claims
        expires = check_times(claims, now)
        if claims.get("authProvider") != OWN_ISSUER:
            raise Unauthorized("The token has another provider.")
        user = _name(claims.get("user"))
        if not known and not await self._keys.verify_anew(token.signed, token.signature):
            raise Unauthorized("The token's signature is wrong.")
        caller = UserContext(
            user,
            OWN_ISSUER,
            issuer=OWN_ISSUER,
            subject=_subject(claims) or user,
            scopes=scopes_in(claims, "scope"),
            roles=roles_in(claims, "roles"),
            claims=claims,
        )
        return caller, expires

    def nearness(self, token: Token) -> int:
        """See `Verifier`."""
        return 2 * (token.algorithm == "HS256") + (token.claims.get("authProvider") == OWN_ISSUER)


class OIDCTokens(Verifier):
    """Tokens of an OpenID Connect issuer (https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation).

    Args:
        issuers: The accepted values of ``iss``, compared exactly. The first is the value of `UserContext.issuer`.
        audience: The value that ``aud`` must be or contain, or several of which one.
        keys_uri: The address of the issuer's public keys; None for discovery.
        algorithm: The signature algorithm.
        user_claim: The claim that becomes `UserContext.email`.
        require_email_verified: Whether ``email_verified`` must be true.
        use: The kind of tokens: ``"id"``, ``"access"``, or ``"any"`` if the caller decides by other claims.
        roles_claim: The claim with the roles; None for no roles.
        scopes_claim: The claim with the scopes; None for no scopes.
        provider: The value of `UserContext.auth_provider`; by default the issuer.
        on_rotated: Called when the issuer has withdrawn a key.
    """

    def __init__(
        self,
        issuers: Sequence[str],
        audience: str | Sequence[str],
        keys_uri: str | None,
        *,
        algorithm: str = "RS256",
        user_claim: str = "email",
        require_email_verified: bool = True,
        use: Literal["id", "access", "any"] = "id",
        roles_claim: str | None = None,
        scopes_claim: str | None = None,
        provider: str = "",
        on_rotated: Callable[[], None] = lambda: None,
    ) -> None:
        self._issuers = tuple(issuers)
        self._audiences = frozenset([audience] if isinstance(audience, str) else audience)
        self._algorithm = algorithm
        self._user_claim = user_claim
        self._require_email_verified = require_email_verified
        self._use = use
        self._roles_claim, self._scopes_claim = roles_claim, scopes_claim
        self._provider = provider or self._issuers[0]
        self._signature: Any = None
        self.keys = KeySet(keys_uri, algorithm, issuer=self._issuers[0], on_rotated=on_rotated)

    @classmethod
    def google(cls, audience: str, *, keys_uri: str = GOOGLE_KEYS, on_rotated: Callable[[], None]) -> OIDCTokens:
        """Return the verifier of Google's ID tokens for `audience`."""
        return cls(GOOGLE_ISSUERS, audience, keys_uri, provider="google", on_rotated=on_rotated)

    @classmethod
    def configured(cls, issuer: OIDCIssuer, *, on_rotated: Callable[[], None]) -> OIDCTokens:
        """Return the verifier of an issuer in the API configuration."""
        return cls(
            issuers_of(issuer.issuer) if issuer.token_use == "access" else (issuer.issuer,),
            issuer.audience,
            issuer.jwks_uri,
            algorithm=issuer.algorithm,
            user_claim=issuer.user_claim,
            require_email_verified=issuer.require_email_verified,
            use=issuer.token_use,
            roles_claim=issuer.roles_claim,
            scopes_claim=issuer.scopes_claim,
            on_rotated=on_rotated,
        )

    async def verify(self, token: Token, now: float) -> tuple[UserContext, float]:
        """See `Verifier`."""
        if token.algorithm != self._algorithm:
            raise Unauthorized("The token has another algorithm.")
        # Claims first, so that a forged token with wrong claims never causes a fetch of keys.
        claims = token.claims
        expires = check_times(claims, now)
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise Unauthorized("The token has another issuer.")
        is_access = self._use == "access"
        if self._use == "id":
            check_id_token(token)
        if not self._is_for_us(access_audience(token) if is_access else claims.get("aud")):
            raise Unauthorized("The token has another audience.")
        user, subject = self._user_of(claims), _subject(claims)
        if is_access and subject is None:
            raise Unauthorized("The token has no subject.")
        key = self.keys.known(token.kid) or await self.keys.find(token.kid)
        if key is None:
            raise Unauthorized("The token's key is unknown.")
        if self._signature is None:
            from jwt.algorithms import get_default_algorithms  # with cryptography, 30 ms that a service may not need

            self._signature = get_default_algorithms()[self._algorithm]
        if not self._signature.verify(token.signed, key, token.signature):
            raise Unauthorized("The token's signature is wrong.")
        caller = UserContext(
            user,
            self._provider,
            issuer=self._issuers[0],
            subject=subject,
            scopes=scopes_in(claims, self._scopes_claim),
            roles=roles_in(claims, self._roles_claim),
            claims=claims,
        )
        return caller, expires

    def nearness(self, token: Token) -> int:
        """See `Verifier`."""
        issuer = token.claims.get("iss")
        return 4 * (isinstance(issuer, str) and issuer in self._issuers) + (token.algorithm == self._algorithm)

    def _is_for_us(self, audience: Any) -> bool:
        if isinstance(audience, str):
            return audience in self._audiences
        if not isinstance(audience, list) or len(audience) > _MAX_AUDIENCES:
            return False
        return all(isinstance(entry, str) for entry in audience) and not self._audiences.isdisjoint(audience)

    def _user_of(self, claims: dict[str, Any]) -> str | None:
        """Return the user; None for an access token that names none.

        Raises:
            Unauthorized: It names none, or its email address is not verified.
        """
        value = claims.get(self._user_claim)
        user = None if value is None and self._use == "access" else _name(value)
        verified = claims.get("email_verified")
        # Where the email address is not what identifies the caller, an issuer need not say that it is verified.
        may_lack = user is None or self._user_claim != "email"
        if self._require_email_verified and not (_is_true(verified) or (verified is None and may_lack)):
            raise Unauthorized("The token's email address is not verified.")
        return user


def _is_true(value: Any) -> bool:
    # Cognito and Apple write it as a string. 1 equals True, but is not accepted.
    return value is True or (isinstance(value, str) and value == "true")


def _subject(claims: dict[str, Any]) -> str | None:
    return None if claims.get("sub") is None else _name(claims["sub"])


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_USER:
        raise Unauthorized("The token names no user.")
    return value
