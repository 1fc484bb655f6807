"""Tell ID tokens from access tokens, so that one is never accepted in place of the other.

An access token must say that it is one: by its header (RFC 9068), or in the way of Cognito or Entra, which do not
follow that standard. An ID token must not look like an access token.
"""

from __future__ import annotations

import re
from typing import Final

from totoms.auth.tokens import Token
from totoms.errors import Unauthorized

_ACCESS_TYPES: Final = ("at+jwt", "application/at+jwt")
"""RFC 9068, section 4."""
_COGNITO: Final = re.compile(r"https://cognito-idp\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/[^/]+")
_ENTRA: Final = (
    ("sts.windows.net", "login.microsoftonline.com"),
    ("sts.windows.net", "login.microsoftonline.us"),
    ("sts.chinacloudapi.cn", "login.partner.microsoftonline.cn"),
)
"""Entra's hosts in `iss`, of version 1 and 2: in the public cloud, that of the United States' government and of China.
https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud"""
_ENTRA_V1, _ENTRA_V2 = (
    re.compile(f"https://({'|'.join(re.escape(hosts[version]) for hosts in _ENTRA)})/([^/]+)/{end}")
    for version, end in enumerate(("", r"v2\.0"))
)
_ONLY_IN_ID_TOKENS: Final = ("nonce", "at_hash", "c_hash")
"""https://openid.net/specs/openid-connect-core-1_0.html, sections 2, 3.1.3.6 and 3.3.2.11."""
_ONLY_IN_ENTRAS_ACCESS_TOKENS: Final = ("azpacr", "appidacr", "scp")
_ID_TOKEN: Final = "ID"
"""Keycloak's claim ``typ`` of an ID token; its others are Bearer, Refresh, Offline and Logout."""


def issuers_of(issuer: str) -> tuple[str, ...]:
    """Return the values of ``iss`` to accept in access tokens of a declared issuer, which is the first.

    Entra signs access tokens as its v1 or as its v2 issuer, which the API's registration decides, not the caller.
    """
    for pattern in (_ENTRA_V1, _ENTRA_V2):
        if found := pattern.fullmatch(issuer):
            host, tenant = found.groups()
            clouds = [hosts for hosts in _ENTRA if host in hosts]
            both = [(f"https://{first}/{tenant}/", f"https://{second}/{tenant}/v2.0") for first, second in clouds]
            return tuple(dict.fromkeys([issuer, *(one for pair in both for one in pair)]))
    return (issuer,)


def check_id_token(token: Token) -> None:
    """Check that a token does not look like an access token.

    Raises:
        Unauthorized: It does.
    """
    claims = token.claims
    if (
        (token.type or "").lower().endswith("+jwt")
        or claims.get("token_use", "id") != "id"
        or claims.get("typ", _ID_TOKEN) != _ID_TOKEN
        or any(name in claims for name in _ONLY_IN_ENTRAS_ACCESS_TOKENS)
    ):
        raise Unauthorized("The token is not an ID token.")


def access_audience(token: Token) -> object:
    """Return the audience of an access token.

    Returns:
        The claim ``aud``. For a token of Cognito without one, its ``client_id``.

    Raises:
        Unauthorized: The token does not say that it is an access token, or has no subject.
    """
    claims = token.claims
    issuer = claims.get("iss")
    cognito = isinstance(issuer, str) and _COGNITO.fullmatch(issuer) is not None
    if any(name in claims for name in _ONLY_IN_ID_TOKENS) or claims.get("token_use", "access") != "access":
        raise Unauthorized("The token is not an access token.")
    is_access = (token.type or "").lower() in _ACCESS_TYPES or (cognito and "token_use" in claims) or _is_entras(token)
    if not is_access:
        raise Unauthorized("The token is not an access token.")
    if cognito and "aud" not in claims:
        return claims.get("client_id")
    return claims.get("aud")


def _is_entras(token: Token) -> bool:
    """Return whether a token has what only Entra's access tokens have, of the version that its issuer is of."""
    issuer, claims = token.claims.get("iss"), token.claims
    if not isinstance(issuer, str):
        return False
    names = ("azp", "azpacr") if claims.get("ver") == "2.0" else ("appid", "appidacr")
    pattern = {"1.0": _ENTRA_V1, "2.0": _ENTRA_V2}.get(str(claims.get("ver")))
    return bool(pattern and pattern.fullmatch(issuer)) and all(isinstance(claims.get(name), str) for name in names)
