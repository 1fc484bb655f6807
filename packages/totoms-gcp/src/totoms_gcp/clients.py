"""The SDK's clients for files and secrets: one of each for a process, made when it is first needed, off the event loop.

All threads share them. Where a client goes is the SDK's affair, but for an emulator of Secret Manager, of which the
SDK knows nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import grpc
from google.auth import default as default_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport
from requests.adapters import HTTPAdapter

SECRETS_EMULATOR: Final = "SECRET_MANAGER_EMULATOR_HOST"
"""``host:port`` of what stands in for Secret Manager, without TLS and credentials: for development and tests."""
FILES_EMULATOR: Final = "STORAGE_EMULATOR_HOST"
"""Read by the SDK as well: an address with its scheme."""
CONNECTIONS: Final = 50
"""Connections of the client for files: as many calls at a time."""
_CHANNEL: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own are 1 s, growing to 2 minutes: who asks again within seconds must find the store that is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

# At the level DEBUG this writes whole answers, with the secrets in them. Who wants to read them sets its level by name.
_quoting: Final = logging.getLogger(SecretManagerServiceGrpcTransport.__module__)
if _quoting.level == logging.NOTSET:
    _quoting.setLevel(logging.INFO)

_Client = TypeVar("_Client")
_clients: dict[Hashable, Any] = {}
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Files:
    """What works on files.

    Attributes:
        client: The SDK's client.
        session: For what the SDK does not do: content that streams, in both directions. It has the same credentials.
        address: What URLs begin with.
    """

    client: storage.Client
    session: AuthorizedSession
    address: str


def files(project: str) -> Files:
    """Return what works on files, for a project. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    return _shared(("files", project), lambda: _files(project))


def secrets() -> SecretManagerServiceClient:
    """Return the client of Secret Manager. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    return _shared("secrets", _secrets)


def signer() -> Credentials:
    """Return the application default credentials, with an emulator, too. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are none.
    """
    return _shared("signer", _credentials)


def iam() -> AuthorizedSession:
    """Return what asks Google for signatures. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    return _shared("iam", lambda: AuthorizedSession(signer()))


def close_clients() -> None:
    """Close the connections of all clients. The next call makes new ones."""
    with _lock:
        closing = list(_clients.values())
        _clients.clear()
    for one in closing:
        if isinstance(one, Files):
            one.session.close()
            one.client.close()
        elif isinstance(one, AuthorizedSession):
            one.close()
        elif isinstance(one, SecretManagerServiceClient):
            one.transport.close()


def _shared(key: Hashable, make: Callable[[], _Client]) -> _Client:
    found = _clients.get(key)
    if found is None:
        with _lock:
            found = _clients.get(key)
            if found is None:
                found = _clients[key] = make()
    return cast(_Client, found)


def _credentials() -> Credentials:
    return default_credentials(scopes=_SCOPES)[0]


def _files(project: str) -> Files:
    credentials = AnonymousCredentials() if os.environ.get(FILES_EMULATOR) else signer()
    session = AuthorizedSession(credentials)
    pool = HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS)
    session.mount("https://", pool)
    session.mount("http://", pool)
    client = storage.Client(project=project, credentials=credentials, _http=session)
    return Files(client, session, str(client.api_endpoint).rstrip("/"))


def _secrets() -> SecretManagerServiceClient:
    emulator = os.environ.get(SECRETS_EMULATOR)
    if emulator:
        channel = grpc.insecure_channel(emulator, options=_CHANNEL)
        transport = SecretManagerServiceGrpcTransport(host=emulator, channel=channel, credentials=None)
    else:
        transport = SecretManagerServiceGrpcTransport(
            credentials=signer(), channel=_connect, always_use_jwt_access=True
        )
    return SecretManagerServiceClient(transport=transport)


def _connect(host: str, **options: Any) -> grpc.Channel:
    return SecretManagerServiceGrpcTransport.create_channel(host, **{**options, "options": _CHANNEL})


def _forget() -> None:
    # A forked child shares its parent's sockets, and must not use them.
    global _lock
    _clients.clear()
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget)
