"""The issuer's key server slow, away, broken or rotating: known keys go on working, and it is asked seldom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from http_kit import KeyServer, make_service, token
from totoms import APIEndpoint, OIDCIssuer, Undecidable, toto_delegate
from totoms import jwks as jwks_module
from totoms.auth import Authenticator
from totoms.jwks import COOLDOWN, FAILED_COOLDOWN, REFRESH_AFTER, USABLE_FOR, KeySet, download, prepare_keys
from totoms.verifiers import OIDCTokens, OwnTokens

ISSUER = "https://issuer.example"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setup:
    def __init__(self, server: KeyServer) -> None:
        self.server = server
        self.clock = Clock()
        self.rotations = 0
        self.keys = KeySet(server.uri, "RS256", on_rotated=self._rotated, clock=self.clock)

    def _rotated(self) -> None:
        self.rotations += 1

    async def settled(self) -> None:
        """Wait for a fetch in the background to end."""
        if self.keys._fetching is not None:
            await asyncio.wait_for(asyncio.shield(self.keys._fetching), 10)


@pytest.fixture
def setup(key_server: KeyServer) -> Setup:
    return Setup(key_server)


async def test_key_is_fetched_once_for_many_callers_at_once(setup: Setup) -> None:
    found = await asyncio.gather(*(setup.keys.find("one") for _ in range(100)))
    assert all(key is not None for key in found)
    assert setup.server.fetches == 1


async def test_ten_thousand_unknown_keys_cost_one_fetch_per_cooldown(setup: Setup) -> None:
    assert await setup.keys.find("one") is not None
    for number in range(10_000):
        assert await setup.keys.find(f"unknown {number}") is None
    assert setup.server.fetches == 1
    setup.clock.now += COOLDOWN + 1
    for number in range(100):
        assert await setup.keys.find(f"unknown {number}") is None
    assert setup.server.fetches == 2


async def test_new_key_is_found_after_the_cooldown(setup: Setup, other_key: RSAPrivateKey) -> None:
    await setup.keys.find("one")
    setup.server.keys["two"] = other_key
    assert await setup.keys.find("two") is None
    setup.clock.now += COOLDOWN + 1
    assert await setup.keys.find("two") is not None
    assert setup.rotations == 0


async def test_withdrawn_key_is_told(setup: Setup, other_key: RSAPrivateKey) -> None:
    await setup.keys.find("one")
    setup.server.keys = {"two": other_key}
    setup.clock.now += REFRESH_AFTER + 1
    assert setup.keys.known("one") is not None
    await setup.settled()
    assert setup.keys.known("one") is None
    assert setup.rotations == 1


async def test_key_replaced_under_its_id_is_told(setup: Setup, other_key: RSAPrivateKey) -> None:
    await setup.keys.find("one")
    setup.server.keys = {"one": other_key}
    setup.clock.now += REFRESH_AFTER + 1
    setup.keys.known("one")
    await setup.settled()
    assert setup.rotations == 1


def away(server: KeyServer) -> None:
    server.status = 503


def garbage(server: KeyServer) -> None:
    server.answer = b"\x00\xff<html>"


def empty(server: KeyServer) -> None:
    server.answer = b'{"keys": []}'


def no_set(server: KeyServer) -> None:
    server.answer = b"[1, 2]"


def symmetric(server: KeyServer) -> None:
    server.answer = b'{"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0", "alg": "RS256"}]}'


def endless(server: KeyServer) -> None:
    server.answer = b" " * (jwks_module.MAX_BYTES + 1)


def redirecting(server: KeyServer) -> None:
    server.status, server.location = 302, server.uri + "?again"


FAULTS: list[Callable[[KeyServer], None]] = [away, garbage, empty, no_set, symmetric, endless, redirecting]


@pytest.mark.parametrize("fault", FAULTS)
async def test_known_key_serves_while_the_key_server_is_broken(
    fault: Callable[[KeyServer], None], setup: Setup
) -> None:
    await setup.keys.find("one")
    fault(setup.server)
    setup.clock.now += USABLE_FOR - 1
    assert await setup.keys.find("one") is not None
    await setup.settled()
    assert await setup.keys.find("one") is not None
    assert setup.server.fetches == 2
    assert setup.rotations == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_any_key_it_cannot_be_decided(fault: Callable[[KeyServer], None], setup: Setup) -> None:
    fault(setup.server)
    for _ in range(3):
        with pytest.raises(Undecidable) as caught:
            await setup.keys.find("one")
    assert caught.value.retry_after > 0
    assert setup.server.fetches == 1
    setup.server.status, setup.server.answer, setup.server.location = 200, None, ""
    setup.clock.now += FAILED_COOLDOWN + 1
    assert await setup.keys.find("one") is not None


async def test_unknown_key_cannot_be_decided_while_the_key_server_is_away(setup: Setup) -> None:
    await setup.keys.find("one")
    setup.server.status = 503
    setup.clock.now += COOLDOWN + 1
    with pytest.raises(Undecidable):
        await setup.keys.find("two")


async def test_keys_too_old_serve_no_more(setup: Setup) -> None:
    await setup.keys.find("one")
    setup.server.status = 503
    setup.clock.now += USABLE_FOR + 1
    with pytest.raises(Undecidable):
        await setup.keys.find("one")


async def test_slow_key_server_holds_up_nobody_who_needs_no_new_key(setup: Setup) -> None:
    await setup.keys.find("one")
    setup.server.hold.clear()
    setup.server.asked.clear()
    setup.clock.now += COOLDOWN + 1
    waiting = asyncio.create_task(setup.keys.find("two"))
    await asyncio.to_thread(setup.server.asked.wait, 10)
    assert await asyncio.wait_for(setup.keys.find("one"), 1) is not None
    assert not waiting.done()
    setup.server.hold.set()
    assert await waiting is None


async def test_caller_who_goes_away_does_not_cancel_the_fetch_of_others(setup: Setup) -> None:
    setup.server.hold.clear()
    first, second = (asyncio.create_task(setup.keys.find("one")) for _ in range(2))
    await asyncio.to_thread(setup.server.asked.wait, 10)
    first.cancel()
    setup.server.hold.set()
    assert await second is not None
    assert setup.server.fetches == 1


async def test_very_slow_key_server_is_given_up(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_module, "TIMEOUT", 0.1)
    key_server.hold.clear()
    with pytest.raises(OSError, match="timed out"):
        await asyncio.to_thread(download, key_server.uri)


@pytest.mark.parametrize(
    "uri", ["http://example.com/certs", "file:///etc/passwd", "ftp://127.0.0.1/", "https:///x", "data:,x"]
)
def test_keys_come_over_https_only(uri: str) -> None:
    with pytest.raises((ValueError, OSError)):
        download(uri)


def test_set_of_one_key_serves_tokens_without_key_id(key_server: KeyServer, other_key: RSAPrivateKey) -> None:
    assert None in prepare_keys(key_server.published(), "RS256")
    key_server.keys["two"] = other_key
    assert None not in prepare_keys(key_server.published(), "RS256")


def test_malformed_key_hides_no_good_one(key_server: KeyServer) -> None:
    published = key_server.published().replace(
        b'{"keys": [', b'{"keys": [7, {"kty": "RSA", "kid": "x", "n": "", "e": "!"}, '
    )
    assert set(prepare_keys(published, "RS256")) == {"one", None}


# --- the same, seen by a caller ---


def id_token(key: RSAPrivateKey, kid: str = "one", **claims: Any) -> str:
    wanted = {
        "iss": ISSUER,
        "aud": "us",
        "email": "me@x.example",
        "email_verified": True,
        "authProvider": None,
        **claims,
    }
    return token(key, "RS256", {"kid": kid}, **{"user": None, **wanted})


@toto_delegate
async def who(request, user_context, exec_context):  # type: ignore[no-untyped-def]
    return user_context.email


async def ask(service: Any, bearer: str) -> Any:
    async with service.client(bearer) as client:
        return await client.get("/who")


def configured(key_server: KeyServer) -> Any:
    issuer = OIDCIssuer(issuer=ISSUER, audience="us", jwks_uri=key_server.uri)
    return make_service(APIEndpoint("GET", "/who", who), oidc_issuers=[issuer])


async def test_configured_issuer_is_accepted_beside_own_tokens(
    key_server: KeyServer, issuer_key: RSAPrivateKey
) -> None:
    service = configured(key_server)
    assert (await ask(service, id_token(issuer_key))).json() == "me@x.example"
    assert (await ask(service, token())).json() == "me@example.com"


async def test_undecidable_is_503_with_retry_after_not_401(key_server: KeyServer, issuer_key: RSAPrivateKey) -> None:
    key_server.status = 503
    service = configured(key_server)
    answer = await ask(service, id_token(issuer_key))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == 503
    assert (await ask(service, token())).status_code == 200


async def test_what_no_key_could_mend_is_401_even_without_keys(
    key_server: KeyServer, issuer_key: RSAPrivateKey
) -> None:
    key_server.status = 503
    service = configured(key_server)
    for bad in (id_token(issuer_key, aud="them"), id_token(issuer_key, iss="x"), id_token(issuer_key, exp=1), "a.b.c"):
        assert (await ask(service, bad)).status_code == 401
    assert key_server.fetches == 0


async def test_email_need_not_be_verified_where_the_issuer_says_nothing_of_it(
    key_server: KeyServer, issuer_key: RSAPrivateKey
) -> None:
    issuer = OIDCIssuer(ISSUER, "us", key_server.uri, user_claim="sub", require_email_verified=False)
    service = make_service(APIEndpoint("GET", "/who", who), oidc_issuers=[issuer])
    assert (await ask(service, id_token(issuer_key, sub="42", email_verified=None))).json() == "42"


# --- remembered tokens ---


async def test_token_is_verified_once(key_server: KeyServer, issuer_key: RSAPrivateKey) -> None:
    verifier = OIDCTokens([ISSUER], "us", key_server.uri, provider="x")
    authenticator = Authenticator(verifiers=[verifier])
    header = b"Bearer " + id_token(issuer_key).encode()
    assert authenticator.remembered(header) is None
    first = await authenticator.authenticate([header])
    again = authenticator.remembered(header)
    assert again == first
    assert again is not first
    key_server.keys.clear()
    assert await authenticator.authenticate([header]) == first


async def test_remembered_token_ends_with_its_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    header = b"Bearer " + token("k" * 32, exp=int(time.time()) + 100).encode()
    await authenticator.authenticate([header])
    assert authenticator.remembered(header) is not None
    later = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: later)
    assert authenticator.remembered(header) is None


async def test_remembered_tokens_go_when_a_key_is_withdrawn(
    key_server: KeyServer, issuer_key: RSAPrivateKey, other_key: RSAPrivateKey
) -> None:
    issuer = OIDCIssuer(ISSUER, "us", key_server.uri)
    service = make_service(APIEndpoint("GET", "/who", who), oidc_issuers=[issuer])
    bearer = id_token(issuer_key)
    assert (await ask(service, bearer)).status_code == 200
    keys = service.authenticator._verifiers[-1].keys
    key_server.keys = {"two": other_key}
    keys._tried = None
    assert await keys.find("two") is not None
    assert (await ask(service, bearer)).status_code == 401


async def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totoms.auth.REMEMBERED", 10)
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    headers = [b"Bearer " + token("k" * 32, user=f"u{number}").encode() for number in range(50)]
    for header in headers:
        await authenticator.authenticate([header])
        assert authenticator.remembered(header) is not None
    kept = sum(authenticator.remembered(header) is not None for header in headers)
    assert 5 <= kept <= 10


async def test_remembered_token_says_nothing_of_a_longer_one() -> None:
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    header = b"Bearer " + token("k" * 32).encode()
    await authenticator.authenticate([header])
    assert authenticator.remembered(header + b"A") is None
    assert authenticator.remembered(header[:-1]) is None
