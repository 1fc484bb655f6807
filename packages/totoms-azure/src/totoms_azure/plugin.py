"""The hooks of the Azure plugin. Each imports its class only when it is called."""

from __future__ import annotations

from totoms.plugin import CloudStorage, HyperscalerConfiguration, MessageBus, SecretsManager, hookimpl


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """The vault, the storage account and the namespace."""
    from totoms_azure.configuration import AzureConfiguration

    return AzureConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Key Vault."""
    from totoms_azure.secrets import AzureSecretsManager

    return AzureSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Blob Storage."""
    from totoms_azure.storage.storage import AzureCloudStorage

    return AzureCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Service Bus."""
    from totoms_azure.messages.bus import AzureMessageBus

    return AzureMessageBus
