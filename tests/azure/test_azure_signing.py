"""Signed URLs where the credentials are tokens: with a user delegation key. Azurite accepts tokens over HTTPS."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
import trustme
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from standins.azure.entra import IDENTITY, TENANT, EntraStandIn
from standins.ports import free_port
from support.azure.secrets import identity
from support.azure.storage import azurite, files, require_azurite
from totoms import CloudStorage
from totoms.context import new_cid
from totoms.errors import Unsupported
from totoms_azure.storage import signing

DAYS = 86_400


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an account that takes tokens, for a service that has an identity."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    over_tls = ["--oauth", "basic", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem")]
    monkeypatch.setattr(signing, "_keys", {})
    with subprocess.Popen([*require_azurite(port), *over_tls], stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            with EntraStandIn() as entra, identity(entra, str(tmp_path / "ca.pem")):
                yield f"https://127.0.0.1:{port}/{azurite.ACCOUNT}"
        finally:
            process.kill()


@pytest.fixture
def bucket(account: str) -> CloudStorage:
    name = f"bucket-{new_cid()}"
    with BlobServiceClient(account, DefaultAzureCredential()) as operator:
        operator.create_container(name)
    return files(name, storage_account_url=account)


def test_url_is_signed_by_a_key_that_is_lent_to_the_identity(bucket: CloudStorage) -> None:
    methods: tuple[tuple[Literal["GET", "PUT"], str], ...] = (("GET", "r"), ("PUT", "cw"))
    # Azurite lends keys, and does not know the form of what is signed with them today.
    for method, permission in methods:
        signed = httpx.URL(bucket.signed_url("a b.txt", method)).params
        assert (signed["skoid"], signed["sktid"]) == (IDENTITY, TENANT)
        assert (signed["sr"], signed["sp"], signed["spr"]) == ("b", permission, "https")
        assert signed["sig"]


def test_key_is_lent_once_and_again_when_it_would_not_live_long_enough(bucket: CloudStorage) -> None:
    def asked() -> set[float]:
        return {until for until, _ in signing._keys.values()}

    bucket.signed_url("key", "GET", 900)
    first = asked()
    bucket.signed_url("other", "PUT", 6 * DAYS)
    assert asked() == first
    bucket.signed_url("key", "GET", 7 * DAYS)
    assert asked() != first


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_shared_access_signature_signs_no_other(method: Literal["GET", "PUT"]) -> None:
    shared = "BlobEndpoint=https://shop.blob.core.windows.net;SharedAccessSignature=sv=2024-11-04&sig=a-secret"
    with pytest.raises(Unsupported, match="shared access signature") as refused:
        files("bucket", storage_connection_string=shared).signed_url("key", method)
    assert "a-secret" not in str(refused.value)
