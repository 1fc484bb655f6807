"""The clients of Service Bus, and their errors.

Two clients send and receive messages and belong to a bus and its event loop; one administers, for the process.

The SDK opens a connection for each sender and receiver, so they are kept.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from azure.servicebus import TransportType
from azure.servicebus import exceptions as amqp
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.management import ServiceBusAdministrationClient
from requests.utils import get_environ_proxies

from totoms.errors import (
    AccessDenied,
    BackendError,
    Closed,
    ConfigurationError,
    LeaseLost,
    MessageTooLarge,
    NotFound,
    Unavailable,
)
from totoms.plugin import run_in_thread
from totoms_azure import clients, errors, private_api
from totoms_azure.configuration import AzureConfiguration

PUBLISH_SECONDS: Final = 20.0
"""The longest that sending may take, with all tries."""
_TRY: Final[dict[str, Any]] = {"try_timeout": 10, "retry_backoff_factor": 0.2, "retry_backoff_max": 2}
# The publisher retries itself: the SDK would also retry what is denied, for half a minute. The core's consumer retries
# receiving, and soon: with the SDK's retries it would notice late that the broker is back.
_ONCE: Final = {**_TRY, "retry_total": 0}
_ADMINISTRATION_SECONDS: Final = 10
SOCKET_SECONDS: Final = 0.05
"""How long an empty read blocks the connection: the SDK alternates between reading and writing."""

_TABLE: Final[tuple[tuple[type[Exception], type[BackendError]], ...]] = (
    (amqp.MessagingEntityNotFoundError, NotFound),
    (amqp.MessageNotFoundError, LeaseLost),
    (amqp.MessageLockLostError, LeaseLost),
    (amqp.SessionLockLostError, LeaseLost),
    (amqp.MessageAlreadySettled, LeaseLost),
    (amqp.MessageSizeExceededError, MessageTooLarge),
    (amqp.ServiceBusAuthenticationError, AccessDenied),
    (amqp.ServiceBusAuthorizationError, AccessDenied),
    (amqp.MessagingEntityDisabledError, Unavailable),
    (amqp.ServiceBusQuotaExceededError, Unavailable),
    (amqp.ServiceBusServerBusyError, Unavailable),
    (amqp.ServiceBusCommunicationError, Unavailable),
    (amqp.ServiceBusConnectionError, Unavailable),
    (amqp.OperationTimeoutError, Unavailable),
    (amqp.ServiceBusError, BackendError),
)
"""See https://learn.microsoft.com/azure/service-bus-messaging/service-bus-messaging-exceptions-latest."""
_HOST: Final = re.compile(r"Endpoint=sb://([^/;:]+)", re.IGNORECASE)
_Result = TypeVar("_Result")

# It logs each connection at INFO, and errors that it raises as well.
_verbose: Final = logging.getLogger("azure.servicebus")
if _verbose.level == logging.NOTSET:
    _verbose.setLevel(logging.CRITICAL)


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the BackendError for an error of the SDK of Service Bus; raise it ``from`` that one.

    AMQP errors are in the table; those of HTTP are left to `totoms_azure.errors`.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the topic", "the subscription".
        resource: Its name.
    """
    mapped = next((ours for theirs, ours in _TABLE if isinstance(error, theirs)), None)
    if private_api.is_shut_down(error):
        mapped = Closed
    if mapped is None:
        return errors.translate(error, what, resource)
    condition = private_api.condition_of(error)
    name = f"{type(error).__name__} ({condition})" if condition else type(error).__name__
    return mapped(f"Azure failed for {what} {resource!r}: {name}.", resource=resource)


def is_no_session(error: BackendError) -> bool:
    """Return whether an error means that no session has messages: the SDK says so by a time-out only."""
    return isinstance(error.__cause__, amqp.OperationTimeoutError)


class Clients:
    """Clients of one namespace. Constructing it does no I/O.

    Args:
        settings: Name the namespace, and the credentials.
    """

    def __init__(self, settings: AzureConfiguration) -> None:
        self._settings = settings
        self._made: dict[str, ServiceBusClient] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def sending(self) -> ServiceBusClient:
        """The client that makes senders."""
        return self._client("sending")

    @property
    def receiving(self) -> ServiceBusClient:
        """The client that makes receivers."""
        return self._client("receiving")

    async def administer(
        self, work: Callable[[ServiceBusAdministrationClient], _Result], what: str, resource: str
    ) -> _Result:
        """Call `work` in a thread with the client that administers; its errors become BackendErrors.

        Args:
            work: What to call.
            what: What it is about, for a person: "the topic".
            resource: Its name.
        """

        def administer() -> _Result:
            return work(self._administration())

        try:
            return await run_in_thread(administer)
        except Exception as error:
            raise translate(error, what, resource) from error

    async def close(self) -> None:
        """Close the connections. A second call does nothing."""
        self._closed = True
        made, self._made = self._made if self._loop is asyncio.get_running_loop() else {}, {}
        for client in made.values():
            await client.close()

    def _client(self, name: str) -> ServiceBusClient:
        if self._closed:
            raise Closed("The message bus is closed.")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a client of another loop can be neither used nor closed here
            self._loop, self._made = loop, {}
        if name not in self._made:
            connection = self._settings.servicebus_connection_string.get_secret_value()
            options = {**_ONCE, **_authorities(), **_transport(self._settings)}
            if connection:
                self._made[name] = ServiceBusClient.from_connection_string(connection, **options)
            else:
                namespace = self._settings.servicebus_namespace
                self._made[name] = ServiceBusClient(namespace, clients.AsyncCredential(), **options)
        return self._made[name]

    def _administration(self) -> ServiceBusAdministrationClient:
        connection = self._settings.servicebus_connection_string.get_secret_value()
        namespace = self._settings.servicebus_namespace
        bounded = {
            **clients.RETRY,
            "connection_timeout": _ADMINISTRATION_SECONDS,
            "read_timeout": _ADMINISTRATION_SECONDS,
        }

        def make() -> ServiceBusAdministrationClient:
            if connection:
                return ServiceBusAdministrationClient.from_connection_string(connection, **bounded)
            return ServiceBusAdministrationClient(namespace, clients.credential(), **bounded)

        return clients.CLIENTS.get(("service bus", namespace, connection), make)


def _authorities() -> dict[str, Any]:
    """Return the SDK's argument for the certificate authorities. By default it trusts only certifi's over AMQP."""
    path = os.environ.get("REQUESTS_CA_BUNDLE", "")
    if not path:
        return {}
    folder = Path(path).is_dir()  # requests takes both
    context = ssl.create_default_context(capath=path) if folder else ssl.create_default_context(cafile=path)
    return {"ssl_context": context}


def _transport(settings: AzureConfiguration) -> dict[str, Any]:
    """Return the SDK's arguments for the transport. AMQP over WebSockets goes through the environment's proxy."""
    if settings.servicebus_transport == "amqp":
        return {}
    if importlib.util.find_spec("aiohttp") is None:
        raise ConfigurationError(
            "AzureConfiguration: servicebus_transport (AZURE_SERVICEBUS_TRANSPORT) is websockets, which needs aiohttp: "
            "pip install 'aiohttp<4'"
        )
    options: dict[str, Any] = {"transport_type": TransportType.AmqpOverWebsocket}
    host = _HOST.search(settings.servicebus_connection_string.get_secret_value())
    proxies = get_environ_proxies(f"https://{host[1] if host else settings.servicebus_namespace}")
    proxy = urlsplit(proxies.get("https") or proxies.get("all") or "")
    if proxy.hostname:
        options["http_proxy"] = {"proxy_hostname": f"{proxy.scheme}://{proxy.hostname}", "proxy_port": proxy.port or 80}
        if proxy.username:
            options["http_proxy"] |= {"username": unquote(proxy.username), "password": unquote(proxy.password or "")}
    return options
