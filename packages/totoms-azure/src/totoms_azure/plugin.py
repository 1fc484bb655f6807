"""What the entry point names: the classes that implement totoms on Azure, each imported when it is asked for."""

from __future__ import annotations

from totoms.bus import MessageBus
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage


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
    from totoms_azure.storage import AzureCloudStorage

    return AzureCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Service Bus."""
    from totoms_azure.bus import AzureMessageBus

    return AzureMessageBus
