"""docs/how-to/oidc-cognito.md: the declaration accepts the provider's documented access token."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from support.http.app import KeyServer
from support.http.issuer_pages import check_page
from support.http.providers import COGNITO


async def test_declaration_accepts_the_documented_token(key_server: KeyServer, issuer_key: RSAPrivateKey) -> None:
    await check_page("how-to/oidc-cognito.md", COGNITO, key_server, issuer_key)
