"""The hooks of the local backend, registered through the same entry point as any plugin's."""

from __future__ import annotations

from totoms.messages.bus import MessageBus
from totoms.plugins.configuration import HyperscalerConfiguration
from totoms.plugins.hookspecs import hookimpl
from totoms.secrets.manager import SecretsManager
from totoms.storage.storage import CloudStorage


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """Return the class of its settings."""
    from totoms.local.configuration import LocalConfiguration

    return LocalConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Return the class that reads secrets from environment variables and ``.env``."""
    from totoms.local.secrets import LocalSecretsManager

    return LocalSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Return the class that keeps files under the root folder."""
    from totoms.local.storage.storage import LocalCloudStorage

    return LocalCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Return the class that keeps messages in SQLite."""
    from totoms.local.messages.bus import LocalMessageBus

    return LocalMessageBus
