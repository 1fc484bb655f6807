"""Authentication of the client and the server: passwords, tokens, certificates."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from totoms import SecretsManager, TotoEnvironment
from totoms.errors import AccessDenied, BackendError, ConfigurationError, NotFound, Unavailable
from totoms_nats.clients import clients, thread_connection
from totoms_nats.configuration import NatsConfiguration
from totoms_nats.testing.server import NatsServer


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a self-signed certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nats of the tests")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(*private))
    return files


@pytest.fixture
def guarded(nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A server of its own that wants TLS, certificates of its clients, and a token."""
    monkeypatch.setattr("totoms_nats.clients.DEADLINE", 2.0)
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "config").write_text(
        f'authorization {{ token: "canary" }}\n'
        f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{certificate}", verify: true }}\n'
    )
    with NatsServer(tmp_path, arguments=("-c", str(tmp_path / "config"))) as server:
        yield server
        clients.close()


def ask(settings: NatsConfiguration) -> None:
    with pytest.raises(NotFound):  # there is no such secret, so the server was asked
        SecretsManager(TotoEnvironment("nats", settings)).get_secret("a")


def test_server_and_client_know_each_other_by_certificate_and_token(guarded: NatsServer, tmp_path: Path) -> None:
    url, certificate, key = guarded.url.replace("nats:", "tls:"), tmp_path / "certificate.pem", tmp_path / "key.pem"

    ask(NatsConfiguration(url=url, tls_ca=certificate, tls_cert=certificate, tls_key=key, token="canary"))

    for wrong, error in (
        ({"tls_ca": certificate, "tls_cert": certificate, "tls_key": key, "token": "canary 2"}, AccessDenied),
        ({"tls_ca": certificate, "token": "canary"}, BackendError),
        ({"token": "canary"}, Unavailable),
    ):
        with pytest.raises(error) as told:
            SecretsManager(TotoEnvironment("nats", NatsConfiguration(url=url, **wrong))).get_secret("a")
        assert "canary" not in f"{told.value!r} {told.value.__cause__!r}"


def test_certificate_that_is_not_there_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    settings = NatsConfiguration(tls_ca=tmp_path / "none.pem")
    client = thread_connection(settings)
    with pytest.raises(ConfigurationError, match="NATS_TLS_CA"):
        client.run(client.connection.client())
