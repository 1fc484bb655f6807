"""Cognito, Entra, Auth0 and Keycloak: their key sets and tokens in the shapes that they document."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import RSAAlgorithm

from totoms import OIDCIssuer

CLIENT, API = "client-of-the-tests", "https://api.example"
TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
ENTRA_V2 = f"https://login.microsoftonline.com/{TENANT}/v2.0"
ENTRA_V1 = f"https://sts.windows.net/{TENANT}/"
CERTIFICATE = ["MIIC+DCCAeCgAwIBAgIJBIGjYW6hFpn2MA0GCSqGSIb3DQEBBQUAMCMx"]
Claims = dict[str, Any]


@dataclass(frozen=True)
class Provider:
    """A provider.

    Attributes:
        issuer: The value of ``iss``.
        key: What its key set says of a key, besides the numbers.
        id_claims: The claims of an ID token, besides the times.
        access_claims: The claims of an access token, besides the times.
        access_header: The header of an access token, besides algorithm and key id.
        id_entry: How its ID tokens are declared.
        access_entry: How its access tokens are declared.
        more_keys: Further entries of its key set.
    """

    issuer: str
    key: Claims
    id_claims: Claims
    access_claims: Claims
    access_header: Claims
    id_entry: Claims
    access_entry: Claims
    more_keys: Callable[[Claims], list[Claims]] = lambda numbers: []

    def published(self, key: RSAPrivateKey, kid: str = "one") -> Claims:
        numbers = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        numbers.pop("key_ops", None)
        return {"keys": [{**numbers, **self.key, "kid": kid}, *self.more_keys(numbers)]}

    def entry(self, use: str, uri: str | None, **more: Any) -> OIDCIssuer:
        declared = self.id_entry if use == "id" else self.access_entry
        return OIDCIssuer(**{"issuer": self.issuer, "jwks_uri": uri, "token_use": use, **declared, **more})

    def token(self, use: str, key: RSAPrivateKey, header: Claims | None = None, **claims: Any) -> str:
        """Return a token; a claim or header given as None is left out."""
        now = int(time.time())
        written = self.id_claims if use == "id" else self.access_claims
        merged = {"iss": self.issuer, "iat": now, "exp": now + 600, **written, **claims}
        headers = {"kid": "one", **(self.access_header if use == "access" else {}), **(header or {})}
        return jwt.encode(
            {name: value for name, value in merged.items() if value is not None}, key, "RS256", headers=headers
        )


def _encryption_key(numbers: Claims) -> list[Claims]:
    return [{**numbers, "kid": "two", "use": "enc", "alg": "RSA-OAEP", "x5c": CERTIFICATE, "x5t": "t"}]


COGNITO = Provider(
    issuer="https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abcdefghi",
    key={"alg": "RS256", "use": "sig"},
    id_claims={
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "aud": CLIENT,
        "token_use": "id",
        "email": "ann@example.com",
        "email_verified": True,
        "cognito:username": "ann",
        "cognito:groups": ["admin", "editor"],
        "auth_time": 1500009400,
        "origin_jti": "j",
    },
    access_claims={
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "client_id": CLIENT,
        "token_use": "access",
        "username": "ann",
        "scope": "posts/read posts/write",
        "cognito:groups": ["admin", "editor"],
        "version": 2,
        "jti": "j",
    },
    access_header={},
    id_entry={"audience": CLIENT, "roles_claim": "cognito:groups"},
    access_entry={
        "audience": CLIENT,
        "roles_claim": "cognito:groups",
        "scopes_claim": "scope",
        "user_claim": "username",
    },
)
ENTRA = Provider(
    issuer=ENTRA_V2,
    key={"use": "sig", "x5t": "t", "x5c": CERTIFICATE, "issuer": ENTRA_V2},
    id_claims={
        "ver": "2.0",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "aud": CLIENT,
        "oid": "00000000-0000-0000-66f3-3332eca7ea81",
        "tid": TENANT,
        "name": "Ann",
        "preferred_username": "ann@example.com",
        "email": "somebody.elses@example.com",
        "roles": ["admin"],
        "nonce": "123523",
        "nbf": 1,
    },
    access_claims={
        "ver": "2.0",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "aud": CLIENT,
        "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        "azpacr": "1",
        "oid": "00000000-0000-0000-66f3-3332eca7ea81",
        "tid": TENANT,
        "scp": "posts.read posts.write",
        "roles": ["admin"],
        "nbf": 1,
    },
    access_header={"typ": "JWT", "x5t": "t"},
    id_entry={"audience": CLIENT, "roles_claim": "roles", "user_claim": "oid"},
    access_entry={"audience": CLIENT, "roles_claim": "roles", "scopes_claim": "scp", "user_claim": "oid"},
)
AUTH0 = Provider(
    issuer="https://tests.eu.auth0.com/",
    key={"alg": "RS256", "use": "sig", "x5t": "t", "x5c": CERTIFICATE},
    id_claims={
        "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": CLIENT,
        "nickname": "ann",
        "email": "ann@example.com",
        "email_verified": True,
        "sid": "s",
        "nonce": "n",
        "https://api.example/roles": ["admin", "editor"],
    },
    access_claims={
        "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": [API, "https://tests.eu.auth0.com/userinfo"],
        "client_id": CLIENT,
        "scope": "openid posts:write",
        "permissions": ["posts:write"],
        "jti": "j",
        "https://api.example/roles": ["admin", "editor"],
    },
    access_header={"typ": "at+jwt"},
    id_entry={"audience": CLIENT, "roles_claim": "https://api.example/roles"},
    access_entry={"audience": API, "roles_claim": "https://api.example/roles", "scopes_claim": "permissions"},
)
KEYCLOAK = Provider(
    issuer="https://id.example/realms/tests",
    key={"alg": "RS256", "use": "sig", "x5t": "t", "x5c": CERTIFICATE, "x5t#S256": "s"},
    id_claims={
        "sub": "f:123:ann",
        "aud": CLIENT,
        "typ": "ID",
        "azp": CLIENT,
        "acr": "1",
        "at_hash": "h",
        "email": "ann@example.com",
        "email_verified": True,
        "preferred_username": "ann",
        "realm_access": {"roles": ["admin"]},
    },
    access_claims={
        "sub": "f:123:ann",
        "aud": [API, "account"],
        "typ": "Bearer",
        "azp": CLIENT,
        "scope": "profile posts:write",
        "realm_access": {"roles": ["admin", "offline_access"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "email": "ann@example.com",
        "email_verified": True,
        "preferred_username": "ann",
    },
    access_header={"typ": "at+jwt"},
    id_entry={"audience": CLIENT, "roles_claim": "realm_access.roles"},
    access_entry={"audience": API, "roles_claim": "realm_access.roles", "scopes_claim": "scope"},
    more_keys=_encryption_key,
)
PROVIDERS = {"Cognito": COGNITO, "Entra": ENTRA, "Auth0": AUTH0, "Keycloak": KEYCLOAK}
