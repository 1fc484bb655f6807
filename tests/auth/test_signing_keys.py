"""Keys that a service must not start with, and the tokens it makes."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.http.app import KEY, Settings, make_service, sign
from totoms import APIConfiguration, APIEndpoint, ConfigurationError, Unauthorized, toto_delegate
from totoms.auth.authenticator import Authenticator
from totoms.auth.tokens import hmac_key, make_token, new_toto_service_token, parse_token


@toto_delegate
async def who(request, user_context, exec_context):  # type: ignore[no-untyped-def]
    return user_context.email


@pytest.mark.parametrize("key", ["", "short", "k" * 31, 7, b"k" * 40, ["k" * 40]])
def test_short_or_wrong_key_is_refused_at_start_without_being_shown(key: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Authenticator(Settings(key), APIConfiguration())  # type: ignore[arg-type]
    assert "k" * 31 not in str(caught.value)


def test_public_key_is_not_a_signing_key(issuer_key: RSAPrivateKey) -> None:
    public = issuer_key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    ssh = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for key in (pem, "\n" + pem, ssh, '{"kty": "RSA", "n": "' + "x" * 40):
        with pytest.raises(ConfigurationError, match="public or private key"):
            hmac_key(key)


def test_key_of_32_bytes_is_long_enough() -> None:
    assert hmac_key("é" * 16) == ("é" * 16).encode()


def test_without_verifier_a_service_with_endpoints_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="no token verifier for GET /who"):
        make_service(APIEndpoint("GET", "/who", who), config=Settings(key=None))


def test_without_verifier_a_service_may_have_open_endpoints_only() -> None:
    make_service(APIEndpoint("GET", "/who", who), config=Settings(key=None, open_paths=["/who"]))


def test_empty_audience_is_refused() -> None:
    settings = Settings()
    settings.jwt_expected_audience = ""
    with pytest.raises(ConfigurationError, match="audience"):
        Authenticator(settings, APIConfiguration())  # type: ignore[arg-type]


def test_token_of_a_service_names_it_and_lasts_three_hours() -> None:
    claims = jwt.decode(new_toto_service_token(Settings()), KEY, algorithms=["HS256"])  # type: ignore[arg-type]
    made = jwt.decode(make_token(KEY, "me", 60), KEY, algorithms=["HS256"])
    assert (claims["user"], claims["authProvider"]) == ("toto-service", "toto")
    assert 3 * 3600 - 61 <= claims["exp"] - made["exp"] <= 3 * 3600 - 59


@pytest.mark.parametrize(
    "raw",
    [
        sign(b'{"alg":"HS256"}', b'{"a":"' + b"x" * 9000 + b'"}', bytes).encode(),
        sign(b'{"alg":"HS256","kid":"' + b"k" * 257 + b'"}', b"{}", bytes).encode(),
    ],
    ids=["too long", "long kid"],
)
def test_oversized_token_is_refused_before_any_verifier(raw: bytes) -> None:
    with pytest.raises(Unauthorized):
        parse_token(raw)


def test_token_of_a_service_needs_a_key() -> None:
    with pytest.raises(ConfigurationError, match="jwt-signing-key"):
        new_toto_service_token(Settings(key=None))  # type: ignore[arg-type]
