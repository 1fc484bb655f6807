"""Compare a declaration with what a backend declares of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

from totoms.checks.findings import Finding
from totoms.declaration.messaging import MessageBusConfig
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.errors import ConfigurationError
from totoms.messages.driver import ORDERING, BusDriver
from totoms.messages.lease_setting import check_lease
from totoms.plugins.loader import load

_ADDRESS_VARIABLE = "SERVICE_BASE_URL"


def backend_findings(configuration: TotoMicroserviceConfiguration, hyperscaler: str) -> Iterator[Finding]:
    """Yield what the declaration needs and the backend does not support.

    Args:
        configuration: The declaration.
        hyperscaler: The backend's name.

    Raises:
        PluginError: The plugin is not installed, or cannot be used.
    """
    backend = load(hyperscaler)
    if backend.secrets_manager is None:
        yield _problem(f"The {hyperscaler} backend has no secrets.")
    resources = configuration.resources
    if resources is not None and resources.buckets and backend.cloud_storage is None:
        names = ", ".join(bucket.name for bucket in resources.buckets)
        yield _problem(f"The {hyperscaler} backend has no storage: {names} cannot be opened.")
    declared = configuration.message_bus_configuration
    if declared is None:
        return
    if backend.message_bus is None:
        yield _problem(f"The {hyperscaler} backend has no message bus.")
        return
    yield from _messaging(declared, backend.message_bus, hyperscaler)


def _messaging(declared: MessageBusConfig, bus: type[BusDriver], hyperscaler: str) -> Iterator[Finding]:
    for topic in declared.topics:
        if topic.ordered and ORDERING not in bus.capabilities:
            yield _problem(f"The {hyperscaler} message bus keeps no order: the topic {topic.logical_name} is ordered.")
    if declared.heard and declared.delivery and declared.delivery not in bus.capabilities:
        yield _problem(f"The {hyperscaler} message bus has no {declared.delivery}: delivery={declared.delivery!r}.")
    if declared.heard and declared.delivery == "push" and bus.creates_push and not os.environ.get(_ADDRESS_VARIABLE):
        yield Finding(
            "note",
            "backend",
            f"{_ADDRESS_VARIABLE} is not set: the service makes no push subscription, and needs one that you make.",
        )
    if declared.lease is not None:
        try:
            check_lease(declared.lease, bus.lease_range, hyperscaler)
        except ConfigurationError as error:
            yield _problem(error.message)
    longest, wanted = bus.longest_pause, declared.retry.max_backoff
    if longest is not None and wanted > longest:
        yield Finding(
            "note",
            "backend",
            f"max_backoff is {wanted:g} seconds; on {hyperscaler} a message waits for {longest:g} seconds at most.",
        )


def _problem(text: str) -> Finding:
    return Finding("problem", "backend", text)
