"""Clients for files and secrets, and credentials. All threads of the process share them.

The SDK decides where a client sends its requests, except for an emulator of Secret Manager, which it does not know. An
SDK is imported when its first client is made, so that a service loads only what it uses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.api_core import exceptions as api
from google.api_core.retry import Retry, exponential_sleep_generator
from google.auth import default as default_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter

from totoms.plugin import ClientRegistry
from totoms_gcp.errors import is_transient
from totoms_gcp.private_api import storage_client

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.storage import Client

registry: Final = ClientRegistry()

SECRETS_EMULATOR: Final = "SECRET_MANAGER_EMULATOR_HOST"
"""``host:port`` of an emulator of Secret Manager, without TLS and credentials: for development and tests."""
FILES_EMULATOR: Final = "STORAGE_EMULATOR_HOST"
"""The SDK reads it as well: an address with its scheme."""
CONNECTIONS: Final = 50
"""Connections of the client for files: as many requests at a time."""
_CHANNEL: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own are 1 s, growing to 2 minutes: a retry within seconds must find Secret Manager that is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
TIMEOUT: Final = (5.0, 30.0)
"""Time-outs of requests about files: seconds to connect, and between two pieces of an answer."""
RETRY: Final = Retry(predicate=is_transient, initial=0.1, maximum=4.0, multiplier=2.0, timeout=15.0)
"""Retries requests about files, instead of the client's own retry, which takes two minutes."""
_PAUSES: Final = (0.1, 4.0)
_TRIES: Final = 8
_SECRETS_HOST: Final = "secretmanager.googleapis.com"
_SECRETS_LOGGER: Final = "google.cloud.secretmanager_v1.services.secret_manager_service.transports.grpc"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)


@dataclass(frozen=True, slots=True)
class Files:
    """The client for files, and the session that streams their content.

    Attributes:
        client: The SDK's client.
        session: Streams content in both directions, which the SDK does not. It has the same credentials.
        address: What URLs begin with.
    """

    client: Client
    session: AuthorizedSession
    address: str

    def close(self) -> None:
        """Close the connections."""
        self.session.close()
        self.client.close()


def files(project: str) -> Files:
    """Return the clients for the files of a project. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    return registry.get(("files", project), lambda: _files(project))


def secrets(location: str = "") -> SecretManagerServiceClient:
    """Return the client of Secret Manager. It may block: call it in a thread.

    Args:
        location: The location of regional secrets; each has its own host
            (https://cloud.google.com/secret-manager/docs/reference/rest#regional-service-endpoint).

    Raises:
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    return registry.get(("secrets", location), lambda: _secrets(location), lambda client: client.transport.close())


def signer() -> Credentials:
    """Return the application default credentials, with an emulator, too. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are none.
    """
    return registry.get("signer", lambda: _credentials(), lambda _: None)


def iam() -> AuthorizedSession:
    """Return the session that asks Google for signatures. It may block: call it in a thread.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are no credentials.
    """
    return registry.get("iam", lambda: AuthorizedSession(signer()))


def request_options() -> dict[str, Any]:
    """Return the arguments for time-outs and retries that the methods of the client for files take."""
    return {"timeout": TIMEOUT, "retry": RETRY}


def pauses() -> Iterator[float]:
    """Yield the seconds to wait between attempts that achieve nothing; after the last one, fail."""
    return islice(exponential_sleep_generator(*_PAUSES), _TRIES)


def check(response: Any, *good: int) -> Any:
    """Return the response if it has one of these statuses; otherwise raise the SDK's error for it."""
    if response.status_code in good:
        return response
    raise api.from_http_response(response)


def read_error(response: Any, *_: Any, **__: Any) -> None:
    """Read the whole of an answer that is an error: a hook of `requests` for streams, which would not read it."""
    if response.status_code >= 400:
        response.content  # noqa: B018 - reading it returns the connection to the pool


def grpc_transport(kind: type[Any], emulator: str, options: Sequence[tuple[str, int]], **settings: Any) -> Any:
    """Return a transport of gRPC whose channel has options, which the SDK's clients do not take.

    Args:
        kind: The SDK's class of transport.
        emulator: ``host:port`` of an emulator, which is called without TLS and credentials; "" for Google.
        options: Those of the channel.
        settings: More arguments of the class, for Google.
    """
    if emulator:
        return kind(host=emulator, channel=grpc.insecure_channel(emulator, options=options), credentials=None)

    def connect(host: str, **given: Any) -> grpc.Channel:
        return kind.create_channel(host, **{**given, "options": options})

    return kind(channel=connect, **settings)


def _credentials() -> Credentials:
    return default_credentials(scopes=_SCOPES)[0]


def _files(project: str) -> Files:
    credentials = AnonymousCredentials() if os.environ.get(FILES_EMULATOR) else signer()
    session = AuthorizedSession(credentials)
    pool = HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS)
    session.mount("https://", pool)
    session.mount("http://", pool)
    client = storage_client(project, credentials, session)
    return Files(client, session, str(client.api_endpoint).rstrip("/"))


def _secrets(location: str) -> SecretManagerServiceClient:
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport as Transport,
    )

    # At the level DEBUG the SDK logs whole answers, with the secrets in them. To read them, set this logger's level.
    logger = logging.getLogger(_SECRETS_LOGGER)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    emulator = os.environ.get(SECRETS_EMULATOR, "")
    host = f"secretmanager.{location}.rep.googleapis.com" if location else _SECRETS_HOST
    credentials = None if emulator else signer()
    transport = grpc_transport(
        Transport, emulator, _CHANNEL, host=host, credentials=credentials, always_use_jwt_access=True
    )
    return SecretManagerServiceClient(transport=transport)
