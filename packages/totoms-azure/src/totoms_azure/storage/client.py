"""The client of Blob Storage: one for each account in the process."""

from __future__ import annotations

from typing import Any, Final

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient
from requests.adapters import HTTPAdapter

from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration

BLOCK: Final = 6 * 1024 * 1024
"""Bytes: the most that one request sends."""
CHUNK: Final = 3 * 1024 * 1024
"""Bytes: the most that one request reads. The SDK keeps several copies of it in memory for a while."""
_CONNECTION: Final[dict[str, Any]] = {
    "connection_timeout": 5,
    "read_timeout": 30,
    "connection_data_block_size": 256 * 1024,
}
"""By default the SDK reads 4 KiB at a time."""
_CONNECTIONS: Final = 50
# This SDK has its own retry with other arguments. By default it waits for 15 seconds and more each time.
_OPTIONS: Final[dict[str, Any]] = {
    "retry_total": 3,
    "initial_backoff": 0,
    "increment_base": 1.5,
    "random_jitter_range": 0.5,
    "max_single_get_size": CHUNK,
    "max_chunk_get_size": CHUNK,
    "max_single_put_size": BLOCK,
}


def service_client(settings: AzureConfiguration) -> BlobServiceClient:
    """Return the client. It may block: call it in a thread."""
    connection = settings.storage_connection_string.get_secret_value()
    url = settings.storage_account_url

    def make() -> BlobServiceClient:
        options = {**_OPTIONS, "transport": _transport()}
        if connection:
            return BlobServiceClient.from_connection_string(connection, **options)
        return BlobServiceClient(url, clients.credential(), **options)

    return clients.CLIENTS.get(("blob storage", url, connection), make)


def _transport() -> RequestsTransport:
    session = requests.Session()
    pool = HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS, max_retries=0)  # the SDK retries
    session.mount("https://", pool)
    session.mount("http://", pool)
    # With a transport of one's own the SDK's time-outs are five minutes, unless given here, too.
    return RequestsTransport(session=session, session_owner=True, **_CONNECTION)
