"""The module that the entry point names: four hooks, each of which returns a class."""

from __future__ import annotations

from totoms.plugin import CloudStorage, HyperscalerConfiguration, MessageBus, SecretsManager, hookimpl


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """Return the class of the settings."""
    from totoms_nats.configuration import NatsConfiguration

    return NatsConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Return the class that reads secrets."""
    from totoms_nats.secrets import NatsSecretsManager

    return NatsSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Return the class that stores files."""
    from totoms_nats.storage.storage import NatsCloudStorage

    return NatsCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Return the class that publishes and receives messages."""
    from totoms_nats.messages.bus import NatsMessageBus

    return NatsMessageBus
