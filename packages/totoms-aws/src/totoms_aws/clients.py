"""The SDK's clients: one for each service and process, made when it is first needed, shared by all threads.

Making a client costs tens of milliseconds, and each has a pool of connections of its own; clients, unlike sessions, are
safe to share among threads (https://docs.aws.amazon.com/boto3/latest/guide/clients.html).
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final, Literal

import boto3
import botocore.session
from botocore.config import Config

from totoms_aws.configuration import AWSConfiguration

Service = Literal["sns", "sqs", "s3", "secretsmanager"]

CONNECTIONS: Final = 50
"""Connections of one client: as many calls at a time."""
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 30
"""More than the 20 s of a long poll."""
_ATTEMPTS: Final = 4

_clients: dict[tuple[Service, str], Any] = {}
_lock = threading.Lock()


def client(service: Service, configuration: AWSConfiguration) -> Any:
    """Return the client of a service, for the region of `configuration`. It may block: call it in a thread.

    Raises:
        botocore.exceptions.BotoCoreError: The SDK's own settings are wrong, such as an unknown profile.
    """
    key = service, configuration.region
    found = _clients.get(key)
    if found is None:
        with _lock:
            found = _clients.get(key)
            if found is None:
                found = _clients[key] = _make(service, configuration.region)
    return found


def _make(service: Service, region: str) -> Any:
    session = boto3.session.Session(region_name=region, botocore_session=botocore.session.Session())
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    return session.client(service, config=config)


def close_clients() -> None:
    """Close the connections of all clients. The next call makes new ones."""
    with _lock:
        closing = list(_clients.values())
        _clients.clear()
    for one in closing:
        one.close()


def _forget() -> None:
    # A forked child shares its parent's sockets, and must not use them.
    global _lock
    _clients.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
