"""Tokens of Cognito, Entra, Auth0 and Keycloak: the claims that are read, and the tokens that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from support.http.app import KEY, KeyServer, Service, make_service
from support.http.app import token as own_token
from support.http.providers import (
    API,
    AUTH0,
    CLIENT,
    COGNITO,
    ENTRA,
    ENTRA_V1,
    ENTRA_V2,
    KEYCLOAK,
    PROVIDERS,
    TENANT,
    Provider,
)
from totoms import APIEndpoint, ExecutionContext, OIDCIssuer, Requires, UserContext, toto_delegate
from totoms.auth.authenticator import Authenticator
from totoms.auth.tokens import make_token


def serve(*issuers: OIDCIssuer, requires: Requires | None = None) -> Service:
    @toto_delegate
    async def who(user_context: UserContext, exec_context: ExecutionContext) -> dict[str, Any]:
        return {
            "email": user_context.email,
            "provider": user_context.auth_provider,
            "issuer": user_context.issuer,
            "subject": user_context.subject,
            "scopes": sorted(user_context.scopes),
            "roles": sorted(user_context.roles),
            "authenticated": user_context.authenticated,
            "iss": user_context.claims.get("iss"),
        }

    return make_service(APIEndpoint("GET", "/who", who, requires=requires), oidc_issuers=list(issuers))


async def ask(service: Service, token: str) -> httpx.Response:
    async with service.client(token) as client:
        return await client.get("/who")


@pytest.fixture
def publish(key_server: KeyServer, issuer_key: RSAPrivateKey) -> Callable[[Provider], str]:
    """Publish a provider's key set and return its address."""

    def publishing(provider: Provider) -> str:
        key_server.answer = json.dumps(provider.published(issuer_key)).encode()
        return key_server.uri

    return publishing


Publish = Callable[[Provider], str]

READ: dict[tuple[str, str], dict[str, Any]] = {
    ("Cognito", "id"): {"email": "ann@example.com", "roles": ["admin", "editor"], "scopes": []},
    ("Cognito", "access"): {"email": "ann", "roles": ["admin", "editor"], "scopes": ["posts/read", "posts/write"]},
    ("Entra", "id"): {"email": "00000000-0000-0000-66f3-3332eca7ea81", "roles": ["admin"], "scopes": []},
    ("Entra", "access"): {
        "email": "00000000-0000-0000-66f3-3332eca7ea81",
        "roles": ["admin"],
        "scopes": ["posts.read", "posts.write"],
    },
    ("Auth0", "id"): {"email": "ann@example.com", "roles": ["admin", "editor"], "scopes": []},
    ("Auth0", "access"): {"email": None, "roles": ["admin", "editor"], "scopes": ["posts:write"]},
    ("Keycloak", "id"): {"email": "ann@example.com", "roles": ["admin"], "scopes": []},
    ("Keycloak", "access"): {
        "email": "ann@example.com",
        "roles": ["admin", "offline_access"],
        "scopes": ["posts:write", "profile"],
    },
}


@pytest.mark.parametrize(("name", "use"), READ)
async def test_documented_token_is_read(name: str, use: str, publish: Publish, issuer_key: RSAPrivateKey) -> None:
    provider = PROVIDERS[name]
    answer = await ask(serve(provider.entry(use, publish(provider))), provider.token(use, issuer_key))
    claims = provider.id_claims if use == "id" else provider.access_claims
    assert answer.json() == {
        **READ[name, use],
        "provider": provider.issuer,
        "issuer": provider.issuer,
        "iss": provider.issuer,
        "subject": claims["sub"],
        "authenticated": True,
    }


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(("wanted", "offered"), [("id", "access"), ("access", "id")])
async def test_token_of_the_other_use_is_refused(
    name: str, wanted: str, offered: str, publish: Publish, issuer_key: RSAPrivateKey
) -> None:
    """Also where its audience fits and its user is named: the same client may be the API."""
    provider = PROVIDERS[name]
    entry = provider.entry(wanted, publish(provider))
    aud = entry.audience
    hostile = provider.token(offered, issuer_key, aud=aud, email="ann@example.com", email_verified=True, client_id=aud)
    assert (await ask(serve(entry), hostile)).status_code == 401


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("use", ["id", "access"])
async def test_nothing_is_granted_without_the_name_of_a_claim(
    name: str, use: str, publish: Publish, issuer_key: RSAPrivateKey
) -> None:
    provider = PROVIDERS[name]
    entry = provider.entry(use, publish(provider), roles_claim=None, scopes_claim=None)
    token = provider.token(use, issuer_key, roles=["admin"], scope="posts:write", scopes=["x"], groups=["admin"])
    answer = (await ask(serve(entry), token)).json()
    assert (answer["roles"], answer["scopes"]) == ([], [])


OTHER = "client-of-another"
REFUSED: dict[str, tuple[Provider, str, Callable[[RSAPrivateKey], str]]] = {
    "Cognito, client_id of another client": (
        COGNITO,
        "access",
        lambda key: COGNITO.token("access", key, client_id=OTHER),
    ),
    "Cognito, no client_id": (COGNITO, "access", lambda key: COGNITO.token("access", key, client_id=None)),
    "Cognito, aud of another beside our client_id": (
        COGNITO,
        "access",
        lambda key: COGNITO.token("access", key, aud=OTHER),
    ),
    "Cognito, empty aud beside our client_id": (COGNITO, "access", lambda key: COGNITO.token("access", key, aud="")),
    "Cognito, no token_use": (COGNITO, "access", lambda key: COGNITO.token("access", key, token_use=None)),
    "Cognito, other pool": (COGNITO, "access", lambda key: COGNITO.token("access", key, iss=COGNITO.issuer + "x")),
    "client_id in place of aud, but not of Cognito": (
        AUTH0,
        "access",
        lambda key: AUTH0.token("access", key, aud=None, client_id=API, token_use="access"),
    ),
    "Entra, other tenant": (ENTRA, "access", lambda key: ENTRA.token("access", key, iss=ENTRA_V2.replace("8", "9"))),
    "Entra, v1 of another tenant": (
        ENTRA,
        "access",
        lambda key: ENTRA.token("access", key, iss=ENTRA_V1.replace("8", "9"), ver="1.0", appid="a", appidacr="1"),
    ),
    "Entra, v2 with the names of v1": (
        ENTRA,
        "access",
        lambda key: ENTRA.token("access", key, azp=None, azpacr=None, appid="a", appidacr="1"),
    ),
    "Entra, v1 issuer with version 2": (ENTRA, "access", lambda key: ENTRA.token("access", key, iss=ENTRA_V1)),
    "Entra, v1 issuer in an ID token": (ENTRA, "id", lambda key: ENTRA.token("id", key, iss=ENTRA_V1)),
    "Entra, no azpacr": (ENTRA, "access", lambda key: ENTRA.token("access", key, azpacr=None)),
    "Entra, aud of another API": (ENTRA, "access", lambda key: ENTRA.token("access", key, aud=OTHER)),
    "aud of another API": (AUTH0, "access", lambda key: AUTH0.token("access", key, aud=["https://other.example"])),
    "only the audience of userinfo": (
        AUTH0,
        "access",
        lambda key: AUTH0.token("access", key, aud="https://tests.eu.auth0.com/userinfo"),
    ),
    "aud of another client": (AUTH0, "id", lambda key: AUTH0.token("id", key, aud=OTHER, azp=CLIENT)),
    "access token without its type": (AUTH0, "access", lambda key: AUTH0.token("access", key, {"typ": "JWT"})),
    "access token without a type": (AUTH0, "access", lambda key: AUTH0.token("access", key, {"typ": None})),
    "logout token as an access token": (AUTH0, "access", lambda key: AUTH0.token("access", key, {"typ": "logout+jwt"})),
    "logout token as an ID token": (AUTH0, "id", lambda key: AUTH0.token("id", key, {"typ": "logout+jwt"})),
    "refresh token as an ID token": (KEYCLOAK, "id", lambda key: KEYCLOAK.token("id", key, typ="Refresh")),
    "access token without a subject": (AUTH0, "access", lambda key: AUTH0.token("access", key, sub=None)),
    "access token with an empty subject": (AUTH0, "access", lambda key: AUTH0.token("access", key, sub="")),
    "subject that is a number": (AUTH0, "id", lambda key: AUTH0.token("id", key, sub=7)),
    "access token with an unverified email address": (
        KEYCLOAK,
        "access",
        lambda key: KEYCLOAK.token("access", key, email_verified=False),
    ),
    "access token whose email address nobody verified": (
        KEYCLOAK,
        "access",
        lambda key: KEYCLOAK.token("access", key, email_verified=None),
    ),
    "ID token that names no user": (AUTH0, "id", lambda key: AUTH0.token("id", key, email=None)),
    "Entra, unverified beside the object id": (ENTRA, "id", lambda key: ENTRA.token("id", key, email_verified=False)),
    "key for encryption": (KEYCLOAK, "access", lambda key: KEYCLOAK.token("access", key, {"kid": "two"})),
    "typ a list": (AUTH0, "access", lambda key: AUTH0.token("access", key, {"typ": ["at+jwt"]})),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_token_that_is_not_what_is_declared_is_refused(
    name: str, publish: Publish, issuer_key: RSAPrivateKey
) -> None:
    provider, use, make = REFUSED[name]
    service = serve(provider.entry(use, publish(provider)))
    try:
        hostile = make(issuer_key)
    except TypeError:  # PyJWT itself refuses to write some of them
        import jwt

        hostile = jwt.PyJWS().encode(b"{}", issuer_key, "RS256", headers={"typ": ["at+jwt"]})
    assert (await ask(service, hostile)).status_code == 401
    assert (await ask(service, provider.token(use, issuer_key))).status_code == 200


async def test_same_key_id_at_two_issuers_keeps_their_keys_apart(
    key_server: KeyServer, issuer_key: RSAPrivateKey, other_key: RSAPrivateKey
) -> None:
    other = KeyServer()
    other.keys["one"], key_server.keys["one"] = other_key, issuer_key
    with other.running():
        service = serve(AUTH0.entry("id", key_server.uri), KEYCLOAK.entry("id", other.uri))
        assert (await ask(service, AUTH0.token("id", issuer_key))).status_code == 200
        assert (await ask(service, KEYCLOAK.token("id", other_key))).status_code == 200
        assert (await ask(service, AUTH0.token("id", other_key))).status_code == 401
        assert (await ask(service, KEYCLOAK.token("id", issuer_key))).status_code == 401


async def test_roles_of_the_wrong_issuer_grant_nothing(
    publish: Publish, issuer_key: RSAPrivateKey, key_server: KeyServer
) -> None:
    """One issuer's roles are declared; another's token has the same claim, and its own tokens say who they like."""
    requires = Requires(roles={"admin"}, issuers={KEYCLOAK.issuer})
    uri = publish(KEYCLOAK)
    service = serve(KEYCLOAK.entry("id", uri), AUTH0.entry("id", uri, roles_claim=None), requires=requires)
    roles = {"realm_access": {"roles": ["admin"]}, "roles": ["admin"]}
    assert (await ask(service, KEYCLOAK.token("id", issuer_key))).status_code == 200
    assert (await ask(service, AUTH0.token("id", issuer_key, **roles))).status_code == 403
    assert (await ask(service, own_token(roles=["admin"], iss=KEYCLOAK.issuer))).status_code == 403


CLOUDS = {
    "public": (ENTRA_V1, ENTRA_V2),
    "US Government": (ENTRA_V1, f"https://login.microsoftonline.us/{TENANT}/v2.0"),
    "China": (f"https://sts.chinacloudapi.cn/{TENANT}/", f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0"),
}


def entra_token(key: RSAPrivateKey, issuer: str, version: str) -> str:
    first = {"ver": "1.0", "azp": None, "azpacr": None, "appid": "a", "appidacr": "1", "aud": API}
    return ENTRA.token("access", key, iss=issuer, **(first if version == "1.0" else {}))


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_entra_signs_access_tokens_as_either_version_in_every_cloud(
    cloud: str, publish: Publish, issuer_key: RSAPrivateKey
) -> None:
    issuers = CLOUDS[cloud]
    for declared in issuers:
        service = serve(ENTRA.entry("access", publish(ENTRA), issuer=declared, audience=[API, CLIENT]))
        for issuer, version in zip(issuers, ("1.0", "2.0"), strict=True):
            assert (await ask(service, entra_token(issuer_key, issuer, version))).json()["issuer"] == declared


@pytest.mark.parametrize("declared", CLOUDS)
async def test_token_of_entra_in_another_cloud_is_refused(
    declared: str, publish: Publish, issuer_key: RSAPrivateKey
) -> None:
    service = serve(ENTRA.entry("access", publish(ENTRA), issuer=CLOUDS[declared][1], audience=[API, CLIENT]))
    for cloud, issuers in CLOUDS.items():
        for issuer, version in zip(issuers, ("1.0", "2.0"), strict=True):
            status = (await ask(service, entra_token(issuer_key, issuer, version))).status_code
            assert status == (200 if issuer in CLOUDS[declared] else 401), (cloud, version)


@pytest.mark.parametrize(
    "issuer",
    [
        f"https://login.microsoftonline.us.evil.example/{TENANT}/v2.0",
        f"https://evil.example/https://login.microsoftonline.us/{TENANT}/v2.0",
        f"https://login-microsoftonline.us/{TENANT}/v2.0",
        f"https://login.microsoftonline.de/{TENANT}/v2.0",
        f"http://login.microsoftonline.us/{TENANT}/v2.0",
        f"https://login.microsoftonline.us/{TENANT}/v2.0/",
        f"https://sts.chinacloudapi.cn/{TENANT}",
    ],
)
async def test_token_that_only_looks_like_entras_is_refused(
    issuer: str, publish: Publish, issuer_key: RSAPrivateKey
) -> None:
    service = serve(ENTRA.entry("access", publish(ENTRA), issuer=issuer, audience=[API, CLIENT]))
    for version in ("1.0", "2.0"):
        assert (await ask(service, entra_token(issuer_key, issuer, version))).status_code == 401


async def test_cognito_may_bind_access_tokens_to_an_api(publish: Publish, issuer_key: RSAPrivateKey) -> None:
    entry = COGNITO.entry("access", publish(COGNITO), audience=API)
    assert (await ask(serve(entry), COGNITO.token("access", issuer_key, aud=API))).status_code == 200
    assert (await ask(serve(entry), COGNITO.token("access", issuer_key))).status_code == 401


async def test_one_of_several_audiences_is_enough(publish: Publish, issuer_key: RSAPrivateKey) -> None:
    service = serve(AUTH0.entry("id", publish(AUTH0), audience=["a", "b"]))
    found = [
        (await ask(service, AUTH0.token("id", issuer_key, aud=aud))).status_code
        for aud in ("a", "b", ["x", "b"], "ab", "c", ["c"], [], None)
    ]
    assert found == [200, 200, 200, 401, 401, 401, 401, 401]


async def test_machine_has_a_subject_and_no_user(publish: Publish, issuer_key: RSAPrivateKey) -> None:
    service = serve(KEYCLOAK.entry("access", publish(KEYCLOAK)))
    token = KEYCLOAK.token("access", issuer_key, email=None, email_verified=None, sub="client@clients")
    answer = (await ask(service, token)).json()
    assert (answer["email"], answer["subject"], answer["authenticated"]) == (None, "client@clients", True)


CLAIMS: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("a", {"a": ["x", "y"]}, ["x", "y"], ["x", "y"]),
    ("a", {"a": "x y"}, ["x y"], ["x", "y"]),
    ("a", {"a": "  "}, ["  "], []),
    ("a", {"a": ""}, [], []),
    ("a", {"a": ["x", 1, None, "", ["z"], {"w": 1}, True]}, ["x"], ["x"]),
    ("a", {"a": {"admin": True}}, [], []),
    ("a", {"a": 7}, [], []),
    ("a", {"a": True}, [], []),
    ("a", {"a": None}, [], []),
    ("a", {"b": ["x"]}, [], []),
    ("a.b", {"a": {"b": ["x"]}}, ["x"], ["x"]),
    ("a.b", {"a.b": ["x"], "a": {"b": ["y"]}}, ["x"], ["x"]),
    ("a.b", {"a.b": None, "a": {"b": ["y"]}}, [], []),
    ("a.b", {"a": ["b"]}, [], []),
    ("a.b.c", {"a": {"b.c": ["x"]}}, [], []),
    ("a.", {"a": {"": ["x"]}}, ["x"], ["x"]),
]


@pytest.mark.parametrize(("claim", "claims", "roles", "scopes"), CLAIMS)
def test_claim_is_looked_up_as_it_stands_and_then_as_a_path(
    claim: str, claims: dict[str, Any], roles: list[str], scopes: list[str]
) -> None:
    from totoms.auth.grants import roles_in, scopes_in

    assert (sorted(roles_in(claims, claim)), sorted(scopes_in(claims, claim))) == (roles, scopes)


# --- discovery ---


def configuration(server: KeyServer, **changes: Any) -> str:
    issuer = server.uri.removesuffix("/certs")
    document = {"issuer": issuer, "jwks_uri": server.uri, "id_token_signing_alg_values_supported": ["RS256"], **changes}
    server.paths["/.well-known/openid-configuration"] = json.dumps(document).encode()
    return issuer


def discovered(issuer: str) -> OIDCIssuer:
    return OIDCIssuer(issuer=issuer, audience=CLIENT)


def at(issuer: str, key: RSAPrivateKey) -> str:
    return AUTH0.token("id", key, iss=issuer)


async def test_keys_are_found_by_discovery(key_server: KeyServer, issuer_key: RSAPrivateKey) -> None:
    issuer = configuration(key_server)
    assert (await ask(serve(discovered(issuer)), at(issuer, issuer_key))).status_code == 200
    slash = configuration(key_server, issuer=f"{issuer}/") + "/"
    assert (await ask(serve(discovered(slash)), at(slash, issuer_key))).status_code == 200


DISCOVERIES: dict[str, dict[str, Any]] = {
    "issuer differs": {"issuer": "https://evil.example"},
    "issuer differs by a slash": {"issuer": "http://127.0.0.1/"},
    "no issuer": {"issuer": None},
    "issuer a list": {"issuer": ["http://127.0.0.1"]},
    "no jwks_uri": {"jwks_uri": None},
    "jwks_uri not http": {"jwks_uri": "file:///etc/passwd"},
    "jwks_uri of metadata": {"jwks_uri": "https://169.254.169.254/latest"},
    "jwks_uri in a private network": {"jwks_uri": "https://10.0.0.1/keys"},
    "jwks_uri in a private network by IPv6": {"jwks_uri": "https://[fd00::1]/keys"},
    "jwks_uri without https": {"jwks_uri": "http://keys.example/keys"},
}


@pytest.mark.parametrize("name", DISCOVERIES)
async def test_configuration_that_is_not_the_issuers_is_refused(
    name: str, key_server: KeyServer, issuer_key: RSAPrivateKey
) -> None:
    issuer = configuration(key_server, **DISCOVERIES[name])
    answer = await ask(serve(discovered(issuer)), at(issuer, issuer_key))
    assert (answer.status_code, key_server.fetches) == (503, 1)


async def test_discovery_follows_no_redirect(key_server: KeyServer, issuer_key: RSAPrivateKey) -> None:
    inner = KeyServer()
    with inner.running():
        issuer = configuration(key_server)
        key_server.status, key_server.location = 302, inner.uri
        assert (await ask(serve(discovered(issuer)), at(issuer, issuer_key))).status_code == 503
        assert inner.fetches == 0


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1/x", "https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x"]
)
def test_issuer_elsewhere_cannot_point_at_this_machine(uri: str) -> None:
    from totoms.auth.discovery import keys_uri

    document = {"issuer": "https://id.example", "jwks_uri": uri}
    with pytest.raises(ValueError, match="inner address"):
        keys_uri(json.dumps(document).encode(), "https://id.example")


def test_issuer_in_a_private_network_has_its_keys_there() -> None:
    from totoms.auth.discovery import keys_uri

    document = json.dumps({"issuer": "https://10.0.0.1", "jwks_uri": "https://10.0.0.1/keys"}).encode()
    assert keys_uri(document, "https://10.0.0.1") == "https://10.0.0.1/keys"


@pytest.mark.parametrize("document", [b"", b"[]", b"null", b"\xff", b"{"])
def test_configuration_that_is_not_a_json_object_is_refused(document: bytes) -> None:
    from totoms.auth.discovery import keys_uri

    with pytest.raises(ValueError, match="not of this issuer"):
        keys_uri(document, "https://id.example")


# --- what a delegate gets ---


async def test_claims_cannot_be_changed_for_the_next_request() -> None:
    authenticator = Authenticator(make_service().config)
    header = f"Bearer {make_token(KEY, 'me', claims={'roles': ['a'], 'deep': {'list': [1]}})}".encode()
    first = await authenticator.authenticate([header])
    first.claims["deep"]["list"].append(2)
    first.email = "admin"
    with pytest.raises(TypeError):
        first.claims["roles"] = ["admin"]  # type: ignore[index]
    for name in ("roles", "scopes", "issuer", "subject", "claims"):
        with pytest.raises(AttributeError):
            setattr(first, name, {"admin"})
    second = await authenticator.authenticate([header])
    assert (second.email, second.claims["deep"], second.roles) == ("me", {"list": [1]}, {"a"})
    assert "deep" not in repr(second)
    assert "me" not in repr(second.claims)


def test_anonymous_caller_is_not_authenticated() -> None:
    nobody = UserContext(None)
    assert (nobody.authenticated, nobody.roles, nobody.scopes, dict(nobody.claims)) == (False, set(), set(), {})
    assert not Requires(issuers={"toto"}).allows(nobody)
