"""totoms on Azure: Service Bus, Blob Storage, Key Vault. Chosen by ``HYPERSCALER=azure``."""

from totoms_azure.configuration import AzureConfiguration

__all__ = ["AzureConfiguration"]
