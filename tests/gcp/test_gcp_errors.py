"""Errors of Google's libraries become BackendErrors that name the resource and keep the original as their cause."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from standins.gcp.gcs import GCSStandIn
from standins.gcp.gcs_objects import Fault
from standins.ports import free_port
from support.gcp.secrets import secrets_of_a_test
from support.gcp.storage import settings, write_account
from totoms import CloudStorage, TotoEnvironment
from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable
from totoms_gcp import clients, secrets
from totoms_gcp.configuration import GCPConfiguration
from totoms_gcp.errors import translate

BUCKET = "a-bucket"
SETTINGS = GCPConfiguration(project_id="project-one")


def files() -> CloudStorage:
    return CloudStorage(BUCKET, environment=TotoEnvironment("gcp", SETTINGS))


USES: dict[str, tuple[Callable[[], object], str]] = {
    "stat": (lambda: files().stat("a-key"), "a-key"),
    "download": (lambda: files().get_file_bytes("a-key"), "a-key"),
    "upload": (lambda: files().upload_bytes(b"x", "a-key"), "a-key"),
    "session": (lambda: files().upload_bytes(b"x", "a-key", if_absent=True), "a-key"),
    "copy": (lambda: files().copy_file("a-key", "copy"), "a-key"),
    "delete": (lambda: files().delete_file("a-key"), "a-key"),
    "list": (lambda: files().list_files(), BUCKET),
}
"""Operations, and the resource that each is about."""


@pytest.fixture(autouse=True)
def _fails_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(clients, "RETRY", clients.RETRY.with_delay(0.01, 0.01).with_timeout(0.1))
    monkeypatch.setattr(secrets, "_RETRY", secrets._RETRY.with_timeout(0.1))


def raised_by(call: Callable[[], object], resource: str, error: type[BackendError]) -> BackendError:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.resource == resource
    assert resource in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, BackendError)
    return caught.value


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BackendError),
        (401, AccessDenied),
        (403, AccessDenied),
        (408, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
        (418, BackendError),
    ],
)
def test_answer_of_cloud_storage(use: str, status: int, error: type[BackendError]) -> None:
    with GCSStandIn() as server, settings(server.address):
        server.store.buckets[BUCKET] = {}
        server.store.faults.append(Fault(status=status, times=10**6))
        raised = raised_by(*USES[use], error)
    assert "as the test says" not in str(raised)


@pytest.mark.parametrize("use", USES)
def test_cloud_storage_away(use: str) -> None:
    with settings(f"http://127.0.0.1:{free_port()}"):
        raised_by(*USES[use], Unavailable)


@pytest.mark.parametrize("use", USES)
def test_cloud_storage_that_hangs_up(use: str) -> None:
    with GCSStandIn() as server, settings(server.address):
        server.store.faults.append(Fault(drop=True, times=10**6))
        raised_by(*USES[use], Unavailable)


@pytest.mark.parametrize("use", USES)
def test_cloud_storage_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    monkeypatch.setattr(clients, "TIMEOUT", (1.0, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as deaf, settings(f"http://127.0.0.1:{deaf.getsockname()[1]}"):
        raised_by(*USES[use], Unavailable)


@pytest.mark.parametrize("use", USES)
def test_no_credentials(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    with settings("http://127.0.0.1:1"):
        monkeypatch.delenv(clients.FILES_EMULATOR)
        assert "DefaultCredentialsError" in str(raised_by(*USES[use], AccessDenied))


@pytest.fixture
def token_server() -> Iterator[str]:
    """Refuse every key, as Google does with one that was deleted."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("use", USES)
def test_credentials_that_were_revoked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token_server: str, use: str
) -> None:
    with settings("http://127.0.0.1:1", write_account(tmp_path / "key.json", token_server)):
        monkeypatch.delenv(clients.FILES_EMULATOR)
        assert "RefreshError" in str(raised_by(*USES[use], AccessDenied))


@pytest.mark.parametrize("use", USES)
def test_token_server_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: str) -> None:
    with settings("http://127.0.0.1:1", write_account(tmp_path / "key.json", "http://127.0.0.1:1/token")):
        monkeypatch.delenv(clients.FILES_EMULATOR)
        raised_by(*USES[use], Unavailable)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("NOT_FOUND", NotFound),
        ("PERMISSION_DENIED", AccessDenied),
        ("UNAUTHENTICATED", AccessDenied),
        ("RESOURCE_EXHAUSTED", Unavailable),
        ("UNAVAILABLE", Unavailable),
        ("DEADLINE_EXCEEDED", Unavailable),
        ("INTERNAL", Unavailable),
        ("ABORTED", Unavailable),
        ("UNKNOWN", Unavailable),
        ("DATA_LOSS", Unavailable),
        ("INVALID_ARGUMENT", BackendError),
        ("UNIMPLEMENTED", Unavailable),
        ("FAILED_PRECONDITION", NotFound),
    ],
)
def test_answer_of_secret_manager(status: str, error: type[BackendError]) -> None:
    with secrets_of_a_test() as made:
        made.server.failing = grpc.StatusCode[status]
        raised = raised_by(lambda: made.manager().get_secret("a-secret"), "a-secret", error)
    assert "as the test says" not in str(raised)
    if status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        assert made.server.calls["AccessSecretVersion"] > 1


def test_no_credentials_for_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with secrets_of_a_test() as made, settings("http://127.0.0.1:1"):
        monkeypatch.delenv(clients.SECRETS_EMULATOR)
        raised_by(lambda: made.manager().get_secret("a-secret"), "a-secret", AccessDenied)


_PLUGIN = "Getting metadata from plugin failed with error: "


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (api.ServiceUnavailable(_PLUGIN + "('invalid_grant: Token has been expired or revoked.', {})"), AccessDenied),
        (api.ServiceUnavailable(_PLUGIN + "HTTPSConnectionPool(host='x', port=443): Max retries"), Unavailable),
        (api.RetryError("as the test says", api.ServiceUnavailable("x")), Unavailable),
        (api.RetryError("as the test says", None), Unavailable),
        (api.PreconditionFailed("x"), PreconditionFailed),
        (api.ResourceExhausted("x"), Unavailable),
        (auth.RefreshError("x", retryable=True), Unavailable),
        (auth.RefreshError("x"), AccessDenied),
        (TimeoutError(), Unavailable),
        (RuntimeError("with a secret in it"), BackendError),
    ],
)
def test_error_of_the_sdk_is_mapped(error: Exception, expected: type[BackendError]) -> None:
    raised = translate(error, "the topic", "a-topic")

    assert type(raised) is expected
    assert raised.resource == "a-topic"
    assert "with a secret" not in str(raised)


def test_backend_error_is_not_mapped_again() -> None:
    error = NotFound("x", resource="y")

    assert translate(error, "the topic", "a-topic") is error


def test_secret_is_unavailable_within_its_deadline_when_the_store_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with secrets_of_a_test() as made, socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv(clients.SECRETS_EMULATOR, f"127.0.0.1:{deaf.getsockname()[1]}")
        manager: Any = made.manager()
        monkeypatch.setattr(type(manager), "deadline_seconds", 0.2)
        with pytest.raises(Unavailable, match="a-slow-name") as caught:
            manager.get_secret("a-slow-name")
    assert caught.value.resource == "a-slow-name"
