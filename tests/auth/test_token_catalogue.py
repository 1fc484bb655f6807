"""Attacks on tokens: each is refused, runs no delegate, leaves no state behind, and does not affect later callers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.http.app import KEY, KeyServer, Log, Service, encode, make_service, sign, token
from totoms import APIEndpoint, ExecutionContext, UserContext, toto_delegate
from totoms.auth.tokens import make_token
from totoms.auth.verifiers import OIDCTokens, OwnTokens
from totoms.http.requests import TotoRequest

AUDIENCE = "audience.apps.example.com"
CANARY = "canary-of-the-token-tests"


@dataclass
class Attack:
    """What an attacker has to work with."""

    issuer_key: RSAPrivateKey
    other_key: RSAPrivateKey
    key_server: KeyServer
    evil_server: KeyServer

    def own(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        return token(headers=headers, canary=CANARY, **claims)

    def own_bytes(self, header: bytes = b'{"alg":"HS256"}', payload: bytes | None = None) -> str:
        body = payload if payload is not None else json.dumps(self.own_claims()).encode()
        return sign(header, body, hs256(KEY.encode()))

    def own_claims(self) -> dict[str, Any]:
        return {"user": "me", "authProvider": "toto", "exp": int(time.time()) + 600, "canary": CANARY}

    def unsigned(self) -> str:
        return sign(header("none"), json.dumps(self.own_claims()).encode(), nothing)

    def own_with(self, raw_exp: str) -> str:
        payload = f'{{"user":"me","authProvider":"toto","canary":"{CANARY}","exp":{raw_exp}}}'
        return self.own_bytes(payload=payload.encode())

    def google(self, headers: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
        wanted = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": "me@gmail.com",
            "email_verified": True,
            "iat": int(time.time()),
            "canary": CANARY,
            "user": None,
            "authProvider": None,
            **claims,
        }
        return token(key or self.issuer_key, "RS256", {"kid": "one", **(headers or {})}, **wanted)

    def hs_with_public_key(self, secret: bytes) -> str:
        header = json.dumps({"alg": "HS256", "kid": "one"}).encode()
        claims = {
            **self.own_claims(),
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": "me@gmail.com",
            "email_verified": True,
        }
        return sign(header, json.dumps(claims).encode(), hs256(secret))

    def public_pem(self) -> bytes:
        return self.issuer_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256(key: bytes) -> Callable[[bytes], bytes]:
    import hmac

    return lambda signed: hmac.digest(key, signed, "sha256")


def rs256(key: RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda signed: key.sign(signed, padding.PKCS1v15(), SHA256())


def nothing(_signed: bytes) -> bytes:
    return b""


def header(alg: Any, **more: Any) -> bytes:
    return json.dumps({"alg": alg, **more}).encode()


def nested(claims: dict[str, Any], depth: int) -> bytes:
    return json.dumps(claims).encode()[:-1] + b',"a":' + b"[" * depth + b"]" * depth + b"}"


def swapped(attack: Attack) -> str:
    first, _, last = attack.own().split(".")
    return f"{first}.{encode(json.dumps({**attack.own_claims(), 'user': 'admin'}).encode()).decode()}.{last}"


FAR = 10**7
ATTACKS: dict[str, Callable[[Attack], str]] = {
    **{
        f"algorithm {alg!r}": lambda a, alg=alg: a.own_bytes(header(alg))
        for alg in ("none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS256", None, 256, ["HS256"], {})
    },
    "algorithm none without signature": lambda a: a.unsigned()[:-1],
    "algorithm none with an empty signature": lambda a: a.unsigned(),
    "no algorithm": lambda a: a.own_bytes(b'{"typ":"JWT"}'),
    "HS256 with the issuer's public key as PEM": lambda a: a.hs_with_public_key(a.public_pem()),
    "HS256 with the issuer's public key as DER": lambda a: a.hs_with_public_key(
        a.issuer_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 with the issuer's public key as JWK": lambda a: a.hs_with_public_key(
        json.dumps(json.loads(a.key_server.published())["keys"][0]).encode()
    ),
    "HS256 with an empty key": lambda a: a.hs_with_public_key(b""),
    "own key in jwk": lambda a: a.google({"jwk": json.loads(KeyServerEntry(a.other_key))}, a.other_key),
    "own key server in jku": lambda a: a.google({"jku": a.evil_server.uri, "kid": "evil"}, a.other_key),
    "own key server in jku, known kid": lambda a: a.google({"jku": a.evil_server.uri}, a.other_key),
    "own certificate in x5u": lambda a: a.google({"x5u": a.evil_server.uri}, a.other_key),
    "own certificate in x5c": lambda a: a.google({"x5c": ["TUlJ"]}, a.other_key),
    "kid a number": lambda a: sign(header("RS256", kid=1), b"{}", rs256(a.issuer_key)),
    "kid a list": lambda a: a.own_bytes(header("HS256", kid=["one"])),
    "kid an object": lambda a: a.own_bytes(header("HS256", kid={"one": 1})),
    "kid a path": lambda a: a.google({"kid": "../../../../dev/null"}),
    "kid of 1,000 characters": lambda a: a.google({"kid": "k" * 1000}),
    "kid of 1 MB": lambda a: a.google({"kid": "k" * 1_000_000}),
    "kid unknown": lambda a: a.google({"kid": "two"}),
    "crit unknown": lambda a: a.own({"crit": ["canary"], "canary": 1}),
    "crit empty": lambda a: a.own_bytes(header("HS256", crit=[])),
    "crit exp": lambda a: a.own_bytes(header("HS256", crit=["exp"], exp=1)),
    "b64 false": lambda a: a.own_bytes(header("HS256", b64=False)),
    "signed by another": lambda a: a.google(key=a.other_key),
    "signed with another HS256 key": lambda a: token("another key of 32 bytes and some more"),
    "signature cut": lambda a: a.own()[:-8],
    "signature empty": lambda a: a.own().rpartition(".")[0] + ".",
    "payload swapped": swapped,
    "exp missing": lambda a: a.own(exp=None),
    **{
        f"exp {raw}": lambda a, raw=raw: a.own_with(raw)
        for raw in ("NaN", "Infinity", "-1", "0", "true", "null", "[]", "{}", '""', '"9999999999"', "[9999999999]")
    },
    **{f"exp {raw}": lambda a, raw=raw: a.own_with(raw) for raw in ("1e300", "1e400", f"1{0:030}", f"1{0:05000}")},
    "exp past": lambda a: a.own(exp=int(time.time()) - 1),
    "exp long past": lambda a: a.own(exp=1),
    "nbf in the future": lambda a: a.own(nbf=int(time.time()) + FAR),
    "iat in the future": lambda a: a.own(iat=int(time.time()) + FAR),
    "user missing": lambda a: a.own(user=None),
    **{f"user {user!r}": lambda a, user=user: a.own(user=user) for user in ("", 7, ["me"], {"a": 1}, True, "u" * 5000)},
    "provider missing": lambda a: a.own(authProvider=None),
    **{f"provider {name!r}": lambda a, name=name: a.own(authProvider=name) for name in ("google", "TOTO", ["toto"], 1)},
    **{
        f"issuer {name!r}": lambda a, name=name: a.google(iss=name)
        for name in (
            None,
            "",
            "https://accounts.google.com.evil.example",
            "https://accounts.google.com/",
            "accounts.google.co",
            "http://accounts.google.com",
            "https://ACCOUNTS.google.com",
            "https://evil.example/accounts.google.com",
        )
    },
    **{
        f"issuer {name}": lambda a, name=name: sign(
            header("RS256", kid="one"),
            json.dumps({**a.own_claims(), "iss": name, "aud": AUDIENCE, "email": "m", "email_verified": True}).encode(),
            rs256(a.issuer_key),
        )
        for name in (["https://accounts.google.com"], {"https://accounts.google.com": 1}, 1)
    },
    **{
        f"audience {name!r}": lambda a, name=name: a.google(aud=name)
        for name in (
            None,
            "",
            "other",
            AUDIENCE.upper(),
            AUDIENCE + ".evil.example",
            [],
            ["other"],
            {AUDIENCE: 1},
            [AUDIENCE, 1],
        )
    },
    "audience of 10,000 names": lambda a: a.google(aud=[AUDIENCE, *map(str, range(100))]),
    **{
        f"email_verified {value!r}": lambda a, value=value: a.google(email_verified=value)
        for value in (False, None, 1, 1.0, "false", "True", "TRUE", "1", "", "yes", [True], ["true"], {"true": True})
    },
    **{f"email {value!r}": lambda a, value=value: a.google(email=value) for value in (None, "", 1, ["a"], {"a": 1})},
    "issuer's token with the provider toto": lambda a: a.google(authProvider="toto", user="admin", iss="evil"),
    "20 MB": lambda a: a.own() + "A" * 20_000_000,
    "9 kB": lambda a: a.own(more="x" * 9000),
    "depth 5,000 in the payload": lambda a: a.own_bytes(payload=b'{"a":' + b"[" * 2500 + b"]" * 2500 + b"}"),
    "depth 5,000 in the header": lambda a: a.own_bytes(b'{"a":' + b"[" * 2500 + b"]" * 2500 + b',"alg":"HS256"}'),
    "depth 100": lambda a: a.own_bytes(payload=nested(a.own_claims(), 100)),
    "two parts": lambda a: a.own().rpartition(".")[0],
    "four parts": lambda a: a.own() + ".x",
    "five parts": lambda a: a.own() + ".x.y",
    "padding": lambda a: a.own() + "=",
    "blank within": lambda a: a.own().replace(".", " ."),
    "base64 of the other alphabet": lambda a: a.own().rpartition(".")[0] + ".++//",
    "not base64": lambda a: "a.b.c",
    "header no object": lambda a: a.own_bytes(b'["HS256"]'),
    "payload no object": lambda a: a.own_bytes(payload=b'"me"'),
    "payload null": lambda a: a.own_bytes(payload=b"null"),
    "payload no JSON": lambda a: a.own_bytes(payload=b"me"),
    "payload not UTF-8": lambda a: a.own_bytes(payload=b'{"user":"\xff"}'),
    "payload with a lone surrogate": lambda a: a.own_bytes(payload=b'{"user":"\\ud800"}'),
    "empty": lambda a: "",
}


def KeyServerEntry(key: RSAPrivateKey) -> bytes:
    from jwt.algorithms import RSAAlgorithm

    return json.dumps(RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)).encode()


@pytest.fixture
def attack(issuer_key: RSAPrivateKey, other_key: RSAPrivateKey, key_server: KeyServer) -> Any:
    evil = KeyServer()
    evil.keys["evil"] = evil.keys["one"] = other_key
    with evil.running():
        yield Attack(issuer_key, other_key, key_server, evil)


@pytest.fixture
def service(key_server: KeyServer) -> Service:
    runs: list[str | None] = []

    @toto_delegate
    async def delegate(request: TotoRequest, user_context: UserContext, exec_context: ExecutionContext) -> Any:
        runs.append(user_context.email)
        return {"user": user_context.email, "provider": user_context.auth_provider}

    google = OIDCTokens.google(AUDIENCE, keys_uri=key_server.uri, on_rotated=lambda: None)
    service = make_service(APIEndpoint("GET", "/who", delegate), verifiers=[OwnTokens(KEY), google])
    service.runs = runs  # type: ignore[attr-defined]
    return service


async def who(service: Service, *authorization: str) -> Any:
    async with service.client() as client:
        return await client.get("/who", headers=[("authorization", value) for value in authorization])


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_is_refused_and_leaves_no_trace(name: str, attack: Attack, service: Service, log: Log) -> None:
    hostile = ATTACKS[name](attack)
    answer = await who(service, f"Bearer {hostile}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert set(answer.json()) == {"code", "message", "cid", "detail"}
    assert service.runs == []  # type: ignore[attr-defined]
    assert attack.evil_server.fetches == 0
    traces = log.text + answer.text
    assert CANARY not in traces
    assert len(hostile) < 20 or hostile[:200] not in traces
    good = await who(service, f"Bearer {make_token(KEY, 'good')}")
    assert (good.status_code, good.json()["user"]) == (200, "good")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        ("Basic bWU6bWU=",),
        ("Token {token}",),
        ("{token}",),
        ("Bearer{token}",),
        ("Bearer {token}", "Bearer {token}"),
        ("Bearer {token}", "Basic x"),
        ("Bearer {token} {token}",),
        ("Bearer,{token}",),
    ],
)
async def test_header_that_is_not_a_single_bearer_token_is_refused(headers: tuple[str, ...], service: Service) -> None:
    answer = await who(service, *(header.format(token=make_token(KEY, "me")) for header in headers))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert service.runs == []  # type: ignore[attr-defined]


async def test_two_headers_are_refused_even_when_both_are_remembered(service: Service) -> None:
    bearer = f"Bearer {make_token(KEY, 'me')}"
    assert (await who(service, bearer)).status_code == 200
    assert (await who(service, bearer, bearer)).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_scheme_is_read_in_any_case(scheme: str, service: Service) -> None:
    assert (await who(service, f"{scheme} {make_token(KEY, 'me')}")).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"iss": "accounts.google.com"},
        {"aud": [AUDIENCE]},
        {"aud": ["other", AUDIENCE]},
        {"exp": time.time() + 86_400.5},
        {"email_verified": "true"},
    ],
    ids=[
        "as it comes",
        "issuer without scheme",
        "audience in a list",
        "one of two audiences",
        "expiry with a fraction",
        "email verified, as a string",
    ],
)
async def test_token_of_the_issuer_is_accepted(claims: dict[str, Any], attack: Attack, service: Service) -> None:
    answer = await who(service, f"Bearer {attack.google(**claims)}")
    assert answer.json() == {"user": "me@gmail.com", "provider": "google"}


async def test_token_with_many_small_claims_is_accepted(attack: Attack, service: Service) -> None:
    roles = {f"client{number}": {"roles": ["reader"]} for number in range(40)}
    assert (await who(service, f"Bearer {attack.own(resource_access=roles)}")).status_code == 200


async def test_own_token_is_accepted(attack: Attack, service: Service) -> None:
    answer = await who(service, f"Bearer {attack.own(iat=int(time.time()) + 5, nbf=int(time.time()))}")
    assert answer.json() == {"user": "me@example.com", "provider": "toto"}
