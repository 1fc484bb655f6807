"""What the entry point names: the classes that implement totoms on Google Cloud, each imported when it is asked for."""

from __future__ import annotations

from totoms.bus import MessageBus
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """The project."""
    from totoms_gcp.configuration import GCPConfiguration

    return GCPConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Secret Manager."""
    from totoms_gcp.secrets import GCPSecretsManager

    return GCPSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Cloud Storage."""
    from totoms_gcp.storage import GCSCloudStorage

    return GCSCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Pub/Sub."""
    from totoms_gcp.bus import PubSubMessageBus

    return PubSubMessageBus
