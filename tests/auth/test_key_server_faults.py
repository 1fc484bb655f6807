"""The key server of an issuer is slow, unreachable, broken or rotating: cached keys keep working, requests are few."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from support.flights import ended
from support.http.app import KeyServer, Log, make_service, token
from totoms import APIEndpoint, OIDCIssuer, Undecidable, toto_delegate
from totoms.auth import jwks as jwks_module
from totoms.auth.authenticator import CACHE_SECONDS, Authenticator
from totoms.auth.jwks import COOLDOWN, FAILED_COOLDOWN, REFRESH_AFTER, USABLE_FOR, KeySet, download, prepare_keys
from totoms.auth.verifiers import OIDCTokens, OwnTokens

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
        await ended(self.keys._fetching)


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
        with pytest.raises(Undecidable):
            await setup.keys.find(f"unknown {number}")
    assert setup.server.fetches == 1
    setup.clock.now += COOLDOWN + 1
    found = await asyncio.gather(*(setup.keys.find(f"unknown {number}") for number in range(100)))
    assert found == [None] * 100
    assert setup.server.fetches == 2


async def test_new_key_is_found_after_the_cooldown(setup: Setup, other_key: RSAPrivateKey) -> None:
    await setup.keys.find("one")
    setup.server.keys["two"] = other_key
    setup.clock.now += 1
    with pytest.raises(Undecidable) as caught:
        await setup.keys.find("two")
    assert COOLDOWN - 2 < caught.value.retry_after <= COOLDOWN
    setup.clock.now += COOLDOWN + 1
    assert await setup.keys.find("two") is not None
    assert setup.rotations == 0


async def test_withdrawn_key_is_reported(setup: Setup, other_key: RSAPrivateKey) -> None:
    await setup.keys.find("one")
    setup.server.keys = {"two": other_key}
    setup.clock.now += REFRESH_AFTER + 1
    assert setup.keys.known("one") is not None
    await setup.settled()
    assert setup.keys.known("one") is None
    assert setup.rotations == 1


async def test_key_replaced_under_its_id_is_reported(setup: Setup, other_key: RSAPrivateKey) -> None:
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


async def test_keys_that_are_too_old_are_not_used(setup: Setup) -> None:
    await setup.keys.find("one")
    setup.server.status = 503
    setup.clock.now += USABLE_FOR + 1
    with pytest.raises(Undecidable):
        await setup.keys.find("one")


async def test_slow_key_server_does_not_delay_callers_with_a_known_key(setup: Setup) -> None:
    await setup.keys.find("one")
    setup.server.hold.clear()
    setup.server.asked.clear()
    setup.clock.now += COOLDOWN + 1
    waiting = asyncio.create_task(setup.keys.find("two"))
    await asyncio.to_thread(setup.server.asked.wait, 120)
    assert await asyncio.wait_for(setup.keys.find("one"), 120) is not None
    assert not waiting.done()
    setup.server.hold.set()
    assert await waiting is None


async def test_cancelled_caller_does_not_cancel_the_fetch_for_the_others(setup: Setup) -> None:
    setup.server.hold.clear()
    first, second = (asyncio.create_task(setup.keys.find("one")) for _ in range(2))
    await asyncio.to_thread(setup.server.asked.wait, 120)
    first.cancel()
    setup.server.hold.set()
    assert await second is not None
    assert setup.server.fetches == 1


async def test_very_slow_key_server_is_dropped(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
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


def entry_of(key: Any, kid: str | None = "one", **more: Any) -> dict[str, Any]:
    maker = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    entry = {**maker.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}
    return {name: value for name, value in entry.items() if value is not None}


def prepared(*entries: Any, algorithm: str = "RS256") -> set[str | None]:
    return set(prepare_keys(json.dumps({"keys": entries}).encode(), algorithm))


def test_malformed_key_does_not_hide_good_keys(issuer_key: RSAPrivateKey) -> None:
    bad = [7, {"kty": "RSA", "kid": "x", "n": "", "e": "!"}, {"kty": "RSA", "kid": 7, "n": "AQAB", "e": "AQAB"}]
    assert prepared(*bad, entry_of(issuer_key)) == {"one", None}


UNUSABLE: dict[str, Callable[[RSAPrivateKey], dict[str, Any]]] = {
    "RSA of 1,024 bits": lambda _: entry_of(generate_private_key(65537, 1024)),
    "RSA of 2,047 bits": lambda _: entry_of(generate_private_key(65537, 2047)),
    "key_ops without verify": lambda key: entry_of(key, key_ops=["encrypt"]),
    "key_ops for signing": lambda key: entry_of(key, key_ops=["sign"]),
    "no key_ops": lambda key: entry_of(key, key_ops=[]),
    "key_ops no list": lambda key: entry_of(key, key_ops="verify"),
    "for encryption": lambda key: entry_of(key, use="enc"),
    "another algorithm": lambda key: entry_of(key, alg="RS512"),
    "a private key": lambda key: RSAAlgorithm.to_jwk(key, as_dict=True) | {"kid": "one"},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_key_is_left_out(name: str, issuer_key: RSAPrivateKey, other_key: RSAPrivateKey) -> None:
    bad = UNUSABLE[name](issuer_key)
    with pytest.raises(ValueError, match="no key is usable for RS256"):
        prepared(bad)
    assert prepared({**bad, "kid": "bad"}, entry_of(other_key, "good")) == {"good", None}


def test_key_whose_operations_are_named_may_verify(issuer_key: RSAPrivateKey) -> None:
    assert prepared(entry_of(issuer_key, key_ops=["verify"])) == {"one", None}
    assert prepared(entry_of(issuer_key, key_ops=["sign", "verify"])) == {"one", None}


def test_key_on_another_curve_is_left_out() -> None:
    right, wrong = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    assert prepared(entry_of(right), entry_of(wrong, "two"), algorithm="ES256") == {"one", None}
    assert prepared(entry_of(right), entry_of(wrong, "two"), algorithm="ES384") == {"two", None}


def test_set_with_two_keys_of_one_id_is_refused(issuer_key: RSAPrivateKey, other_key: RSAPrivateKey) -> None:
    with pytest.raises(ValueError, match="two keys have the id 'one'"):
        prepared(entry_of(issuer_key), entry_of(other_key))
    # The same key twice is one key; one that is for something else does not count.
    assert prepared(entry_of(issuer_key), entry_of(issuer_key)) == {"one", None}
    assert prepared(entry_of(issuer_key), entry_of(other_key, use="enc")) == {"one", None}


def test_one_key_without_id_serves_tokens_without_id(issuer_key: RSAPrivateKey, other_key: RSAPrivateKey) -> None:
    assert prepared(entry_of(issuer_key, None)) == {None}
    assert prepared(entry_of(issuer_key, None), entry_of(other_key, "two")) == {None, "two"}
    assert prepared(entry_of(issuer_key, None), entry_of(other_key, None), entry_of(other_key, "two")) == {"two"}


async def test_key_without_id_that_is_withdrawn_is_reported(setup: Setup, other_key: RSAPrivateKey) -> None:
    setup.server.answer = json.dumps({"keys": [entry_of(setup.server.keys["one"], None)]}).encode()
    await setup.keys.find(None)
    setup.server.answer = json.dumps({"keys": [entry_of(other_key, None)]}).encode()
    setup.clock.now += REFRESH_AFTER + 1
    setup.keys.known(None)
    await setup.settled()
    assert setup.rotations == 1


# --- one deadline for the whole exchange ---


class TricklingServer:
    """Sends `prelude`, then one byte after the other until the connection is closed."""

    def __init__(self, prelude: bytes) -> None:
        self._prelude = prelude
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.accepted = threading.Event()
        self.left = threading.Event()
        self.port = self._listener.getsockname()[1]

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self.accepted.set()
        with connection, contextlib.suppress(OSError):
            connection.sendall(self._prelude)
            while not self._over.wait(0.01):
                connection.sendall(b"x")
        self.left.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[TricklingServer]:
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                pass
            thread.join()
            self._listener.close()


TRICKLES = {
    "status line": b"",
    "headers": b"HTTP/1.1 200 OK\r\nx-slow: ",
    "one header after the other": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50,
    "body": b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n",
    "body without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "chunked body": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000\r\n",
}


@pytest.mark.parametrize("name", TRICKLES)
async def test_key_server_that_trickles_is_dropped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_module, "TIMEOUT", 0.5)
    with TricklingServer(TRICKLES[name]).running() as server:
        with pytest.raises(TimeoutError, match="timed out"):
            await asyncio.to_thread(download, f"http://127.0.0.1:{server.port}/certs")
        # On a busy machine the deadline may pass before there is a connection.
        assert not server.accepted.is_set() or await asyncio.to_thread(server.left.wait, 10)


@pytest.mark.parametrize("prelude", [b"", b"HTTP/1.1 200 OK\r\nx-slow: "], ids=["TLS", "proxy"])
async def test_connection_that_trickles_before_it_is_made_is_dropped(
    prelude: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_module, "TIMEOUT", 0.5)
    with TricklingServer(prelude).running() as server:
        if prelude:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        host = "keys.example" if prelude else f"127.0.0.1:{server.port}"
        with pytest.raises(OSError, match=r"."):
            await asyncio.to_thread(download, f"https://{host}/certs")
        # On a busy machine the deadline may pass before there is a connection.
        assert not server.accepted.is_set() or await asyncio.to_thread(server.left.wait, 10)


async def test_waiting_for_a_key_server_that_trickles_holds_no_exit() -> None:
    program = (
        "import asyncio, sys, totoms.auth.jwks as jwks\n"
        "jwks.TIMEOUT = 3600\n"
        "async def main():\n"
        "    keys = jwks.KeySet(sys.argv[1], 'RS256')\n"
        "    asyncio.ensure_future(keys.find('one'))\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())\n"
    )
    with TricklingServer(TRICKLES["headers"]).running() as server:
        uri = f"http://127.0.0.1:{server.port}/certs"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, uri, stdin=asyncio.subprocess.PIPE
        )
        await asyncio.wait_for(process.communicate(b""), 60)
    assert process.returncode == 0


# --- whom a fetch trusts ---


@pytest.fixture
def tls_server(key_server: KeyServer) -> tuple[str, trustme.CA]:
    """The key server over TLS, and the authority that issued its certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    plain = key_server._server.socket
    key_server._server.socket = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    return key_server.uri.replace("http:", "https:"), authority


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
async def test_authorities_of_both_variables_are_trusted(
    name: str, tls_server: tuple[str, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, authority = tls_server
    other = next(one for one in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if one != name)
    for variable, ca in ((name, authority), (other, trustme.CA())):
        ca.cert_pem.write_to_path(str(tmp_path / variable))
        monkeypatch.setenv(variable, str(tmp_path / variable))
    assert b"keys" in await asyncio.to_thread(download, uri)


async def test_unknown_authority_is_not_trusted(tls_server: tuple[str, trustme.CA]) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        await asyncio.to_thread(download, tls_server[0])


async def test_folder_of_authorities_is_trusted(
    tls_server: tuple[str, trustme.CA], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, authority = tls_server
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(file)]
    digest = await asyncio.to_thread(subprocess.check_output, command, text=True)
    file.rename(tmp_path / f"{digest.strip()}.0")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert b"keys" in await asyncio.to_thread(download, uri)


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


async def test_configured_issuer_is_accepted_in_addition_to_own_tokens(
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


async def test_unknown_key_soon_after_a_fetch_is_503_and_then_401(
    key_server: KeyServer, issuer_key: RSAPrivateKey, other_key: RSAPrivateKey
) -> None:
    service = configured(key_server)
    clock = service.authenticator._verifiers[-1].keys._fetching._clock = Clock()
    assert (await ask(service, id_token(issuer_key))).status_code == 200
    rotated = id_token(other_key, "two")
    undecided = await ask(service, rotated)
    assert undecided.status_code == 503
    assert 1 <= int(undecided.headers["retry-after"]) <= COOLDOWN
    clock.now += COOLDOWN
    assert (await ask(service, rotated)).status_code == 401
    key_server.keys["two"] = other_key
    clock.now += COOLDOWN
    assert (await ask(service, rotated)).status_code == 200
    assert key_server.fetches == 3


@pytest.mark.parametrize(
    ("bearer", "reason"),
    [
        (lambda key: id_token(key, aud="them"), "another audience"),
        (lambda key: id_token(key, exp=1), "has expired"),
        (lambda key: id_token(key, email_verified=False), "email address is not verified"),
        (lambda key: id_token(key, iss="https://nobody.example"), "another issuer"),
        (lambda key: token(exp=1), "has expired"),
        (lambda key: token("another key of more than 32 bytes"), "signature is wrong"),
        (lambda key: token(authProvider="google"), "another provider"),
    ],
)
async def test_log_has_the_refusal_of_the_verifier_that_the_token_was_meant_for(
    bearer: Any, reason: str, key_server: KeyServer, issuer_key: RSAPrivateKey, log: Log
) -> None:
    others = [
        OIDCIssuer(issuer="https://other.example", audience="others", jwks_uri=key_server.uri, algorithm="ES256"),
        OIDCIssuer(issuer=ISSUER, audience="us", jwks_uri=key_server.uri),
        OIDCIssuer(issuer="https://last.example", audience="last", jwks_uri=key_server.uri),
    ]
    service = make_service(APIEndpoint("GET", "/who", who), oidc_issuers=others)
    assert (await ask(service, bearer(issuer_key))).status_code == 401
    assert any(reason in line and "GET /who 401" in line for line in log.lines), log.text


# --- remembered tokens ---


async def test_token_is_verified_once(key_server: KeyServer, issuer_key: RSAPrivateKey) -> None:
    verifier = OIDCTokens([ISSUER], "us", key_server.uri, provider="x")
    authenticator = Authenticator(verifiers=[verifier])
    header = b"Bearer " + id_token(issuer_key).encode()
    assert authenticator.cached(header) is None
    first = await authenticator.authenticate([header])
    again = authenticator.cached(header)
    assert again == first
    assert again is not first
    key_server.keys.clear()
    assert await authenticator.authenticate([header]) == first


async def test_remembered_token_ends_with_its_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    header = b"Bearer " + token("k" * 32, exp=int(time.time()) + 100).encode()
    await authenticator.authenticate([header])
    assert authenticator.cached(header) is not None
    later = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: later)
    assert authenticator.cached(header) is None


@pytest.mark.parametrize("clock", ["time", "monotonic"])
async def test_remembered_token_is_judged_anew(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    header = b"Bearer " + token("k" * 32, exp=int(time.time()) + 100_000).encode()
    await authenticator.authenticate([header])
    assert authenticator.cached(header) is not None
    later = getattr(time, clock)() + CACHE_SECONDS + 1
    monkeypatch.setattr(time, clock, lambda: later)
    assert authenticator.cached(header) is None
    await authenticator.authenticate([header])
    assert authenticator.cached(header) is not None


async def test_withdrawn_key_ends_although_only_remembered_tokens_come(
    key_server: KeyServer, issuer_key: RSAPrivateKey, other_key: RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = configured(key_server)
    keys = service.authenticator._verifiers[-1].keys
    clock = keys._fetching._clock = Clock()
    bearer = id_token(issuer_key, exp=int(time.time()) + 100_000)
    assert (await ask(service, bearer)).status_code == 200
    key_server.keys = {"two": other_key}
    assert (await ask(service, bearer)).status_code == 200
    later = time.time() + CACHE_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    clock.now += CACHE_SECONDS + 1
    # Verified anew, by a key that is looked for again; as soon as it is known to be gone, so is the token.
    assert (await ask(service, bearer)).status_code in (200, 401, 503)
    await ended(keys._fetching)
    clock.now += COOLDOWN + 1
    assert (await ask(service, bearer)).status_code == 401


async def test_remembered_tokens_go_when_a_key_is_withdrawn(
    key_server: KeyServer, issuer_key: RSAPrivateKey, other_key: RSAPrivateKey
) -> None:
    issuer = OIDCIssuer(ISSUER, "us", key_server.uri)
    service = make_service(APIEndpoint("GET", "/who", who), oidc_issuers=[issuer])
    bearer = id_token(issuer_key)
    keys = service.authenticator._verifiers[-1].keys
    clock = keys._fetching._clock = Clock()
    assert (await ask(service, bearer)).status_code == 200
    key_server.keys = {"two": other_key}
    clock.now += COOLDOWN
    assert await keys.find("two") is not None
    clock.now += COOLDOWN
    assert (await ask(service, bearer)).status_code == 401


async def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("totoms.auth.authenticator.CACHE_SIZE", 10)
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    headers = [b"Bearer " + token("k" * 32, user=f"u{number}").encode() for number in range(50)]
    for header in headers:
        await authenticator.authenticate([header])
        assert authenticator.cached(header) is not None
    kept = sum(authenticator.cached(header) is not None for header in headers)
    assert 5 <= kept <= 10


async def test_cached_token_does_not_validate_a_longer_or_shorter_one() -> None:
    authenticator = Authenticator(verifiers=[OwnTokens("k" * 32)])
    header = b"Bearer " + token("k" * 32).encode()
    await authenticator.authenticate([header])
    assert authenticator.cached(header + b"A") is None
    assert authenticator.cached(header[:-1]) is None
