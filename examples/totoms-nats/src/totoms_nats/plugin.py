"""What the entry point names: four hooks, each of which returns a class."""

from __future__ import annotations

from totoms.bus import MessageBus
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """Its settings."""
    from totoms_nats.configuration import NatsConfiguration

    return NatsConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Secrets from a key-value bucket."""
    from totoms_nats.secrets import NatsSecretsManager

    return NatsSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Files in object stores."""
    from totoms_nats.storage import NatsCloudStorage

    return NatsCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Messages on JetStream."""
    from totoms_nats.bus import NatsMessageBus

    return NatsMessageBus
