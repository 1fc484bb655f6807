"""The hooks of the Google Cloud plugin. Each imports its class only when it is called."""

from __future__ import annotations

from totoms.plugin import CloudStorage, HyperscalerConfiguration, MessageBus, SecretsManager, hookimpl


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """Return the settings of Google Cloud."""
    from totoms_gcp.configuration import GCPConfiguration

    return GCPConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Return the implementation on Secret Manager."""
    from totoms_gcp.secrets import GCPSecretsManager

    return GCPSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Return the implementation on Cloud Storage."""
    from totoms_gcp.storage.storage import GCSCloudStorage

    return GCSCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Return the implementation on Pub/Sub."""
    from totoms_gcp.messages.bus import PubSubMessageBus

    return PubSubMessageBus
