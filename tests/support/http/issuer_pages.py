"""Check a page about an issuer: its declaration accepts the issuer's documented tokens, and no others."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from support.http.app import KeyServer
from support.http.providers import Provider
from support.pages import run
from totoms.testing import TestMicroservice


async def check_page(page: str, provider: Provider, keys: KeyServer, key: RSAPrivateKey) -> None:
    """Serve the page's declaration with the keys of `keys`, and call it with tokens of `provider`."""
    configuration = run(page).configuration
    (issuer,) = configuration.api_configuration.oidc_issuers
    assert issuer.issuer == provider.issuer
    keys.answer = json.dumps(provider.published(key)).encode()
    issuer.jwks_uri = keys.uri

    async with TestMicroservice(configuration) as service:

        async def status(path: str, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return (await service.client_of(None).get(path, headers=headers)).status_code

        assert await status("/whoami", provider.token("access", key)) == 200
        assert await status("/admin", provider.token("access", key)) == 200
        roles = issuer.roles_claim or ""
        without_roles = provider.token("access", key, **{roles: None, roles.partition(".")[0]: None})
        assert await status("/admin", without_roles) == 403
        assert await status("/whoami", provider.token("id", key)) == 401
        assert await status("/whoami", provider.token("access", key, aud="another", client_id="another")) == 401

    await run(page, 1).check_roles(run(page).configuration)
