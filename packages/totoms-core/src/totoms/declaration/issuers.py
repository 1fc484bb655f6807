"""The issuers whose tokens a service accepts."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import pydantic
from pydantic import Field

from totoms.declaration.base import Declaration

_SECURE: Final = re.compile(r"https://[^/]|http://(127\.0\.0\.1|localhost|\[::1\])[:/]")
Text = Annotated[str, Field(min_length=1)]


def _secure(value: str | None) -> str | None:
    if value is not None and not _SECURE.match(value):
        raise ValueError("must be https (plain http only to this machine)")
    return value


class OIDCIssuer(Declaration):
    """An OpenID Connect issuer whose tokens are accepted (https://openid.net/specs/openid-connect-core-1_0.html).

    An entry accepts ID tokens or access tokens, never both: an ID token is meant for a client, an access token for an
    API. A service that accepts both has two entries.

    Attributes:
        issuer: The exact value of the ``iss`` claim.
        audience: The value that the ``aud`` claim must be or contain, or several of which one must.
        jwks_uri: The https address of the issuer's public keys (RFC 7517); None to find it by OpenID Connect Discovery.
        user_claim: The claim that becomes `UserContext.email`. An access token may lack it: then `email` is None.
        algorithm: The accepted signature algorithm.
        require_email_verified: Whether ``email_verified`` must be true. A token without that claim is accepted only if
            `user_claim` is another claim than ``email``.
        token_use: ``"id"`` for ID tokens; ``"access"`` for access tokens by RFC 9068, of Cognito and of Entra.
        roles_claim: The claim with the roles, or a path to it with dots; None for no roles.
        scopes_claim: The claim with the scopes, or a path to it with dots; None for no scopes.
    """

    issuer: Text
    audience: Text | Annotated[list[Text], Field(min_length=1)]
    jwks_uri: Annotated[str | None, pydantic.AfterValidator(_secure)] = None
    user_claim: Text = "email"
    algorithm: Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"] = "RS256"
    require_email_verified: bool = True
    token_use: Literal["id", "access"] = "id"
    roles_claim: Text | None = None
    scopes_claim: Text | None = None

    @pydantic.model_validator(mode="after")
    def _discoverable(self) -> OIDCIssuer:
        if self.jwks_uri is None and not _SECURE.match(self.issuer):
            raise ValueError("give jwks_uri, or an issuer that is an https address: its keys are found there")
        return self
