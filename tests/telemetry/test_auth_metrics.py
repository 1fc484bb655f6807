"""Tokens that were verified and keys that were read are counted by outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from support.http.app import KEY, KeyServer, rsa_key, token
from totoms.auth.authenticator import Authenticator
from totoms.auth.signing_keys import SigningKeys
from totoms.auth.verifiers import OIDCTokens, OwnTokens
from totoms.errors import Unauthorized, Unavailable, Undecidable
from totoms.testing.spans import recorded_spans


class Counted:
    """What was counted."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def __call__(self, name: str) -> Counter[tuple[Any, ...]]:
        """Return the counts of a metric by the values of its labels, in the order of the labels' names."""
        found: Counter[tuple[Any, ...]] = Counter()
        data = self._reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            if metric.name == f"totoms.auth.{name}":
                for point in cast(Any, metric.data.data_points):
                    found[tuple(value for _, value in sorted(point.attributes.items()))] += point.value
        return found


@pytest.fixture
def counted() -> Iterator[Counted]:
    reader = InMemoryMetricReader()
    with recorded_spans(MeterProvider([reader])):
        yield Counted(reader)


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    server = KeyServer()
    with server.running():
        yield server


def bearer(text: str) -> list[bytes]:
    return [f"Bearer {text}".encode()]


def id_token(key: RSAPrivateKey) -> list[bytes]:
    claims = {
        "iss": "https://issuer.example",
        "aud": "us",
        "sub": "1",
        "email": "me@example.com",
        "iat": int(time.time()),
    }
    own = {"user": None, "authProvider": None}
    return bearer(token(key, "RS256", {"kid": "1"}, **claims, **own, email_verified=True))


async def test_tokens_are_counted_by_outcome_and_a_known_one_once(counted: Counted) -> None:
    authenticator = Authenticator(verifiers=[OwnTokens(KEY)])
    for _ in range(3):
        await authenticator.authenticate(bearer(token()))
    for wrong in (bearer("nonsense"), bearer(token(exp=1)), [b"Basic dTpw"]):
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(wrong)
    with pytest.raises(Unauthorized):
        await authenticator.authenticate([])  # no token
    assert counted("verifications") == {("accepted",): 1, ("rejected",): 3}


async def test_issuer_whose_keys_cannot_be_fetched_leaves_tokens_undecided(counted: Counted, keys: KeyServer) -> None:
    keys.status = 500
    authenticator = Authenticator(verifiers=[OIDCTokens(["https://issuer.example"], "us", keys.uri)])
    for _ in range(2):
        with pytest.raises(Undecidable):
            await authenticator.authenticate(id_token(rsa_key()))
    assert counted("verifications") == {("undecided",): 2}
    assert counted("key_fetches") == {("127.0.0.1", "failed"): 1}


async def test_keys_that_were_fetched_are_counted(counted: Counted, keys: KeyServer) -> None:
    keys.keys["1"] = key = rsa_key()
    authenticator = Authenticator(verifiers=[OIDCTokens(["https://issuer.example"], "us", keys.uri)])
    await authenticator.authenticate(id_token(key))
    assert counted("key_fetches") == {("127.0.0.1", "succeeded"): 1}


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
async def test_reads_of_the_services_own_keys_are_counted(counted: Counted, outcome: str) -> None:
    async def read() -> tuple[str | None, str | None]:
        if outcome == "failed":
            raise Unavailable("The store is away.")
        return KEY, None

    seconds = 0.0
    keys = SigningKeys(KEY, read=read, clock=lambda: seconds)
    seconds = 1000.0
    authenticator = Authenticator(verifiers=[OwnTokens(keys)])
    with pytest.raises((Unauthorized, Undecidable)):
        await authenticator.authenticate(bearer(token("another key, as long as one has to be, at least")))
    assert counted("key_fetches") == {("secrets", outcome): 1}
