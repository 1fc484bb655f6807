"""A stand-in for Entra ID: the managed identity that App Service and Container Apps have, and the keys of its tokens.

https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference

By TLS and the host name of an authority it also gives tokens for a client's secret
(https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow).
"""

from __future__ import annotations

import json
import ssl
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from standins.http_server import HTTPStandIn

HEADER = "the header that the platform gives the service"
SECRET = "the secret of the application"
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
IDENTITY = "1d6ce3a5-5c3e-4f0b-9a52-5f1d3a3f3c10"
"""The managed identity itself."""


class EntraStandIn(HTTPStandIn):
    """Use it with ``with``, and `variables` as the environment.

    Attributes:
        status: With which tokens are refused; 200 for not at all.
        lifetime: Seconds that tokens are good for.
        asked: The resource of each token that was given out.
    """

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        super().__init__(port, context)
        self.key: RSAPrivateKey = generate_private_key(65537, 2048)
        self.status = 200
        self.lifetime = 3600
        self.asked: list[str] = []

    @property
    def variables(self) -> dict[str, str]:
        """What the platform puts into the environment."""
        return {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{self.port}/msi/token", "IDENTITY_HEADER": HEADER}

    @property
    def jwks_uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    def token(self, audience: str, **claims: Any) -> str:
        """Return a token; a claim that is None is left out."""
        now = int(time.time())
        wanted = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "tid": TENANT,
            "oid": IDENTITY,
            **claims,
        }
        given = {name: claim for name, claim in wanted.items() if claim is not None}
        return jwt.encode(given, self.key, algorithm="RS256", headers={"kid": "one"})

    def accepts(self, token: str, audience: str) -> bool:
        """Tell whether a token is one of ours, for that audience and not over."""
        try:
            jwt.decode(token, self.key.public_key(), algorithms=["RS256"], audience=audience)
        except jwt.InvalidTokenError:
            return False
        return True

    def answer(self, request: BaseHTTPRequestHandler, method: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(request.path)
        if parts.path == "/keys":
            public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            keys = {"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}
            return 200, {}, json.dumps(keys).encode()
        if parts.path.startswith(f"/{TENANT}/"):
            return self._authority(request.headers["Host"], parts.path, body)
        if self.status != 200 or request.headers.get("X-IDENTITY-HEADER") != HEADER:
            refusal = {"statusCode": self.status, "message": "No managed identity was found."}
            return self.status if self.status != 200 else 401, {}, json.dumps(refusal).encode()
        resource = parse_qs(parts.query)["resource"][0]
        self.asked.append(resource)
        given = {
            "access_token": self.token(resource),
            "expires_on": str(int(time.time()) + self.lifetime),
            "resource": resource,
            "token_type": "Bearer",
        }
        return 200, {}, json.dumps(given).encode()

    def _authority(self, host: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        base = f"https://{host}/{TENANT}"
        if path.endswith("/.well-known/openid-configuration"):
            found = {
                "issuer": f"{base}/v2.0",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            }
            return 200, {}, json.dumps(found).encode()
        asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if asked.get("client_secret") != SECRET:
            return 401, {}, json.dumps({"error": "invalid_client"}).encode()
        resource = asked["scope"].removesuffix("/.default")
        self.asked.append(resource)
        given = {"access_token": self.token(resource), "expires_in": self.lifetime, "token_type": "Bearer"}
        return 200, {}, json.dumps(given).encode()
