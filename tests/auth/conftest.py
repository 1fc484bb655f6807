from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from support.http.app import Log, rsa_key
from support.http.issuer_fixtures import issuer_key, key_server

__all__ = ["issuer_key", "key_server", "log", "other_key"]


@pytest.fixture
def log() -> Iterator[Log]:
    """What was logged during the test, as JSON lines."""
    with Log().collecting() as log:
        yield log


@pytest.fixture(scope="session")
def other_key() -> RSAPrivateKey:
    """A key that the issuer does not have."""
    return rsa_key()
