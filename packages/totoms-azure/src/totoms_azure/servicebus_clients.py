"""The clients of Service Bus: two of each bus for messages, on its loop, and one of the process that administers.

The SDK gives each sender and receiver a connection of its own, so they are kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.management import ServiceBusAdministrationClient

from totoms.errors import Closed
from totoms.threads import run_in_thread
from totoms_azure import clients
from totoms_azure.configuration import AzureConfiguration
from totoms_azure.servicebus_errors import translate

PUBLISH_SECONDS: Final = 20.0
"""The most that sending may take, with all that is tried again."""
_TRY: Final[dict[str, Any]] = {"try_timeout": 10, "retry_backoff_factor": 0.2, "retry_backoff_max": 2}
# The publisher tries again itself: the SDK would try again what is denied as well, for half a minute. So does the
# core's consumer, and soon: tried here as well, it would be back late.
_ONCE: Final = {**_TRY, "retry_total": 0}
_ADMINISTRATION_SECONDS: Final = 10
SOCKET_SECONDS: Final = 0.05
"""How long a read that finds nothing keeps others from the connection: the SDK reads and writes by turns."""

_Result = TypeVar("_Result")

# It tells each connection's life at INFO, and errors that are raised as well.
_talking: Final = logging.getLogger("azure.servicebus")
if _talking.level == logging.NOTSET:
    _talking.setLevel(logging.CRITICAL)


class Clients:
    """Clients of one namespace. Constructing it does no I/O.

    Args:
        settings: Name the namespace.
    """

    def __init__(self, settings: AzureConfiguration) -> None:
        self._settings = settings
        self._made: dict[str, ServiceBusClient] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def sending(self) -> ServiceBusClient:
        """The client that senders are of."""
        return self._client("sending")

    @property
    def receiving(self) -> ServiceBusClient:
        """The client that receivers are of."""
        return self._client("receiving")

    async def administer(
        self, work: Callable[[ServiceBusAdministrationClient], _Result], what: str, resource: str
    ) -> _Result:
        """Do `work` in a thread with the client that administers; its errors become ours.

        Args:
            work: What to do.
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
        if loop is not self._loop:  # a client of another loop is of no use, and cannot be closed here
            self._loop, self._made = loop, {}
        if name not in self._made:
            connection = self._settings.servicebus_connection_string.get_secret_value()
            if connection:
                self._made[name] = ServiceBusClient.from_connection_string(connection, **_ONCE)
            else:
                namespace = self._settings.servicebus_namespace
                self._made[name] = ServiceBusClient(namespace, clients.AsyncCredential(), **_ONCE)
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

        return clients.shared(("service bus", namespace, connection), make)
