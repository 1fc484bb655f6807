"""Fixtures of a token issuer: its key, and the server that publishes it. A conftest imports them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from support.http.app import KeyServer, rsa_key


@pytest.fixture(scope="session")
def issuer_key() -> RSAPrivateKey:
    """The key of the token issuer."""
    return rsa_key()


@pytest.fixture
def key_server(issuer_key: RSAPrivateKey) -> Iterator[KeyServer]:
    """The issuer's key server, with the key "one"."""
    server = KeyServer()
    server.keys["one"] = issuer_key
    with server.running():
        yield server
