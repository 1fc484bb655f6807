"""Dependencies that are unreachable, slow or broken: the secrets store at start, the issuer's key server later."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.faults.proxy import FaultProxy
from support.http.app import KeyServer, make_service, rsa_key, sign, token
from support.plugins import install_plugin
from totoms import APIEndpoint, OIDCIssuer, toto_delegate
from totoms.auth.jwks import COOLDOWN, TIMEOUT

pytestmark = pytest.mark.faults

ISSUER = "https://issuer.example"
START_DEADLINE = 10.0
"""What a caller waits for the secrets store, in seconds."""

STORE = """
import os, time
from totoms.errors import AccessDenied, NotFound, Unavailable
from totoms.local.plugin import totoms_configuration, totoms_cloud_storage, totoms_message_bus
from totoms.secrets.manager import SecretsManager

class Store(SecretsManager):
    def topic_identifier(self, secret, logical_name):
        return logical_name

    async def topic_identifier_async(self, secret, logical_name):
        return logical_name

    def _fetch(self, name, version):
        fault, concerned = os.environ["STORE_FAULT"].split()
        if name != concerned:
            return b"a-canary-of-thirty-two-bytes-or-more"
        if fault == "slow":
            time.sleep(3600)
        raise {"missing": NotFound, "denied": AccessDenied, "away": Unavailable}[fault](
            f"The secret {name!r} is {fault}.", resource=name
        )

@hookimpl
def totoms_secrets_manager():
    return Store
"""


def test_start_without_its_secrets_fails_in_time_and_names_the_secret(launch: Any, tmp_path: Path, figure: Any) -> None:
    install_plugin(tmp_path, STORE, name="vault", distribution="totoms-vault")
    faults = [f"{fault} blog-api-key" for fault in ("missing", "denied", "away", "slow")]
    faults += [f"{fault} jwt-signing-key" for fault in ("denied", "away", "slow")]
    slowest = 0.0
    for fault in faults:
        began = time.monotonic()
        env = {"HYPERSCALER": "vault", "PYTHONPATH": str(tmp_path), "BLOG_NEEDS_SECRET": "1", "STORE_FAULT": fault}
        service = launch("services/blog.py", **env)
        assert service.wait() == 2, service.output
        slowest = max(slowest, time.monotonic() - began)
        (line,) = [line for line in service.lines if line.startswith("totoms: ")]
        assert fault.split()[1] in line
        assert "Traceback" not in service.output
        assert "canary" not in service.output
    assert slowest < START_DEADLINE + 5
    figure(
        "secrets store missing, denied, away, slow at start",
        f"{len(faults)} of {len(faults)} starts ended with one line that names the secret, slowest {slowest:.1f} s",
    )


@toto_delegate
async def who(request, user_context, exec_context):  # type: ignore[no-untyped-def]
    return user_context.email


def forged(kid: str) -> str:
    """A token that names a key, and costs nothing to make."""
    claims = b'{"iss":"%s","aud":"us","exp":%d,"email":"x","email_verified":true}'
    payload = claims % (ISSUER.encode(), int(time.time()) + 600)
    return sign(b'{"alg":"RS256","kid":"%s"}' % kid.encode(), payload, lambda _: b"x" * 256)


async def test_key_server_slow_away_broken_and_rotating(figure: Any) -> None:
    server, key, now = KeyServer(), rsa_key(), [1000.0]
    server.keys["one"] = key
    serial = iter(range(1_000_000))
    asked: Counter[str] = Counter()

    def good(kid: str, signer: Any) -> str:
        claims = {"iss": ISSUER, "aud": "us", "email": "me@x.example", "email_verified": True, "jti": next(serial)}
        return token(signer, "RS256", {"kid": kid}, **{"user": None, "authProvider": None, **claims})

    async def ask(client: Any, what: str, bearer: str, expected: int) -> None:
        answer = await client.get("/who", headers={"authorization": f"Bearer {bearer}"})
        assert answer.status_code == expected, f"{what}: {answer.status_code}"
        if expected == 503:
            assert int(answer.headers["retry-after"]) >= 1
        asked[f"{what} {expected}"] += 1

    with server.running():
        async with FaultProxy(int(server.uri.split(":")[2].split("/")[0])) as proxy:
            issuer = OIDCIssuer(ISSUER, "us", f"http://127.0.0.1:{proxy.port}/certs")
            service = make_service(APIEndpoint("GET", "/who", who), oidc_issuers=[issuer])
            service.authenticator._verifiers[-1].keys._fetching._clock = lambda: now[0]
            async with service.client() as client:
                await ask(client, "known", good("one", key), 200)
                for number in range(10_000):  # their keys may have been published since the fetch
                    await ask(client, "unknown", forged(f"unknown-{number}"), 503)
                assert server.fetches == 1, "one fetch in a cooldown"
                now[0] += COOLDOWN + 1
                await ask(client, "unknown", forged("unknown"), 401)
                assert server.fetches == 2
                await ask(client, "known", good("one", key), 200)

                async def broken(limit: float) -> None:
                    """Known keys serve, unknown ones cannot be decided, and the server is asked once."""
                    now[0] += COOLDOWN + 1
                    tries = server.fetches
                    began = time.monotonic()
                    waiting = asyncio.create_task(ask(client, "undecidable", forged("unknown"), 503))
                    for _ in range(20):
                        await ask(client, "known", good("one", key), 200)
                    await waiting
                    for number in range(100):
                        await ask(client, "undecidable", forged(f"unknown-{number}"), 503)
                    assert time.monotonic() - began < limit
                    assert server.fetches <= tries + 1

                server.status = 503
                await broken(5)
                server.status, server.answer = 200, b"\x00\xff<html>"
                await broken(5)
                server.answer = None
                server.hold.clear()
                await broken(TIMEOUT + 5)
                server.hold.set()
                for fault in ("drop", "reset", "half_open"):
                    proxy.odds = {fault: 1.0}
                    await broken(TIMEOUT + 5)
                proxy.odds = {}
                await proxy.kill()
                await broken(5)
                await proxy.restore()

                other = rsa_key()
                server.keys = {"two": other}
                now[0] += COOLDOWN + 1
                await ask(client, "rotated in", good("two", other), 200)
                await ask(client, "rotated out", good("one", key), 503)
                now[0] += COOLDOWN + 1
                await ask(client, "rotated out", good("one", key), 401)
    figure(
        "key server 503, garbage, slow, reset, half-open, gone",
        f"{asked['known 200']} known: 200; {asked['undecidable 503']} undecidable: 503; one fetch per cooldown",
    )
    figure(
        "key server rotated; 10,000 unknown key ids",
        "new key 200, old key 401; unknown 503, no fetch for them, and 401 after the next fetch",
    )
