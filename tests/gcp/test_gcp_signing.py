"""Signed URLs to files on Cloud Storage: by the account's own key, by Google, and with credentials that cannot sign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.auth import compute_engine, iam, impersonated_credentials
from google.auth.compute_engine import _metadata

from standins.gcp.gcs import GCSStandIn
from standins.gcp.gcs_signatures import Accounts
from standins.gcp.google_accounts import AccountsStandIn
from support.gcp.storage import settings, write_account
from totoms import CloudStorage, TotoEnvironment
from totoms.errors import AccessDenied, BackendError, Unavailable, Unsupported
from totoms_gcp import clients
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.storage import signing


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_account(tmp_path_factory.mktemp("account") / "key.json")


@pytest.fixture
def server(key: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GCSStandIn]:
    monkeypatch.setattr(clients, "RETRY", clients.RETRY.with_delay(0.01, 0.01).with_timeout(0.5))
    with GCSStandIn(accounts=Accounts.of(key)) as made, settings(made.address):
        made.store.buckets["a-bucket"] = {}
        yield made


@pytest.fixture
def bucket(server: GCSStandIn) -> CloudStorage:
    return CloudStorage("a-bucket", environment=TotoEnvironment("gcp", GCPConfiguration(project_id="project-one")))


@pytest.fixture
def accounts(key: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountsStandIn]:
    with AccountsStandIn(key) as made:
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", made.address)
        monkeypatch.setattr(
            signing, "SIGN_BLOB", f"http://{made.address}/v1/projects/-/serviceAccounts/{{email}}:signBlob"
        )
        yield made


@pytest.fixture
def machine(accounts: AccountsStandIn, server: GCSStandIn, monkeypatch: pytest.MonkeyPatch) -> AccountsStandIn:
    """Credentials of a machine or container: there is an account, and no key."""
    monkeypatch.setattr(clients, "_credentials", compute_engine.Credentials)
    return accounts


@pytest.fixture
def impersonated(machine: AccountsStandIn, monkeypatch: pytest.MonkeyPatch) -> AccountsStandIn:
    monkeypatch.setattr(
        iam, "_IAM_SIGN_ENDPOINT", f"http://{machine.address}/v1/projects/-/serviceAccounts/{{}}:signBlob"
    )

    def made() -> Any:
        return impersonated_credentials.Credentials(compute_engine.Credentials(), machine.email, [])

    monkeypatch.setattr(clients, "_credentials", made)
    return machine


def check_urls(bucket: CloudStorage) -> None:
    with httpx.Client(trust_env=False) as client:
        put = bucket.signed_url("a b/ü", "PUT", content_type="text/x-mine")
        assert client.put(put, content=b"written", headers={"Content-Type": "text/x-mine"}).is_success
        assert client.put(put, content=b"forged", headers={"Content-Type": "text/html"}).status_code == 403
        get = bucket.signed_url("a b/ü")
        assert client.get(get).content == b"written"
        assert client.get(get.replace("a%20b", "b")).status_code == 403


def test_machine_without_a_key_has_google_sign(bucket: CloudStorage, machine: AccountsStandIn) -> None:
    check_urls(bucket)

    assert machine.calls["signBlob"] == 2


def test_machine_asks_for_one_token_for_many_urls(bucket: CloudStorage, machine: AccountsStandIn) -> None:
    for number in range(5):
        bucket.signed_url(f"key-{number}")

    assert machine.calls["signBlob"] == 5
    assert sum(count for what, count in machine.calls.items() if what.endswith("/token")) == 1


def test_account_that_is_impersonated_signs(bucket: CloudStorage, impersonated: AccountsStandIn) -> None:
    check_urls(bucket)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, AccessDenied), (401, AccessDenied), (400, BackendError), (503, Unavailable), (429, Unavailable)],
)
def test_refusal_of_google_to_sign_is_mapped(
    bucket: CloudStorage, machine: AccountsStandIn, status: int, error: type[BackendError]
) -> None:
    machine.failing = [status] * 1000

    with pytest.raises(error) as caught:
        bucket.signed_url("a-key")

    assert type(caught.value) is error
    assert caught.value.resource == "a-key"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("status", "error"), [(403, AccessDenied), (400, Unavailable)])
def test_account_that_must_not_be_impersonated_is_denied(
    bucket: CloudStorage, impersonated: AccountsStandIn, status: int, error: type[BackendError]
) -> None:
    impersonated.failing = [status] * 1000

    with pytest.raises(error) as caught:
        bucket.signed_url("a-key")

    assert type(caught.value) is error
    assert caught.value.resource == "a-key"


def test_failed_signature_is_retried(bucket: CloudStorage, machine: AccountsStandIn) -> None:
    machine.failing = [503]

    assert "X-Goog-Signature=" in bucket.signed_url("a-key")


def test_url_is_signed_without_asking_anybody_with_a_key(bucket: CloudStorage, key: Path) -> None:
    with settings("http://127.0.0.1:1", key):
        url = bucket.signed_url("a b", "PUT", content_type="text/x-mine")

    assert "X-Goog-SignedHeaders=content-type%3Bhost" in url
    assert "X-Goog-Signature=" in url


def test_credentials_that_cannot_sign_are_unsupported(bucket: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Personal(clients.AnonymousCredentials):  # as those of `gcloud auth application-default login`
        def refresh(self, _request: Any) -> None: ...

    monkeypatch.setattr(clients, "_credentials", Personal)

    with pytest.raises(Unsupported, match="service account"):
        bucket.signed_url("key")


def test_signing_without_credentials_is_denied(bucket: CloudStorage) -> None:
    with pytest.raises(AccessDenied) as caught:
        bucket.signed_url("key")

    assert caught.value.resource == "key"
