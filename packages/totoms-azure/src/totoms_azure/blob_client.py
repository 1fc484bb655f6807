"""The client of Blob Storage: one for a process and account."""

from __future__ import annotations

from typing import Any, Final

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient
from requests.adapters import HTTPAdapter

from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration

BLOCK: Final = 6 * 1024 * 1024
"""Bytes that a request with content brings at the most."""
CHUNK: Final = 3 * 1024 * 1024
"""Bytes that a request for content brings at the most: of each the SDK has several copies in memory for a while."""
_CONNECTION: Final[dict[str, Any]] = {
    "connection_timeout": 5, "read_timeout": 30, "connection_data_block_size": 256 * 1024,
}  # fmt: skip
"""By itself the SDK reads 4 KiB at a time."""
_CONNECTIONS: Final = 50
"""As many calls at a time."""
# This SDK has a retry of its own, whose arguments are others; by itself it waits for 15 seconds and more each time.
_SETTINGS: Final[dict[str, Any]] = {
    "retry_total": 3, "initial_backoff": 0, "increment_base": 1.5, "random_jitter_range": 0.5,
    "max_single_get_size": CHUNK, "max_chunk_get_size": CHUNK, "max_single_put_size": BLOCK,
}  # fmt: skip


def service(settings: AzureConfiguration) -> BlobServiceClient:
    """Return the client. It may block: call it in a thread."""
    connection = settings.storage_connection_string.get_secret_value()
    url = settings.storage_account_url

    def make() -> BlobServiceClient:
        options = {**_SETTINGS, "transport": _transport()}
        if connection:
            return BlobServiceClient.from_connection_string(connection, **options)
        return BlobServiceClient(url, clients.credential(), **options)

    return clients.shared(("blob storage", url, connection), make)


def _transport() -> RequestsTransport:
    session = requests.Session()
    # The SDK's own tries nothing again here either: that is done above, once.
    pool = HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS, max_retries=0)
    session.mount("https://", pool)
    session.mount("http://", pool)
    # Who brings a transport has to tell it the time-outs, too: by themselves they are five minutes.
    return RequestsTransport(session=session, session_owner=True, **_CONNECTION)
