"""The local backend's side of the seam, registered by the same entry point as everyone's."""

from __future__ import annotations

from totoms.bus import MessageBus
from totoms.hookspecs import hookimpl
from totoms.hyperscaler import HyperscalerConfiguration
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage


@hookimpl
def totoms_configuration() -> type[HyperscalerConfiguration]:
    """Its settings."""
    from totoms.local.configuration import LocalConfiguration

    return LocalConfiguration


@hookimpl
def totoms_secrets_manager() -> type[SecretsManager]:
    """Secrets from environment variables and ``.env``."""
    from totoms.local.secrets import LocalSecretsManager

    return LocalSecretsManager


@hookimpl
def totoms_cloud_storage() -> type[CloudStorage]:
    """Files under the root folder."""
    from totoms.local.storage import LocalCloudStorage

    return LocalCloudStorage


@hookimpl
def totoms_message_bus() -> type[MessageBus]:
    """Messages in SQLite."""
    from totoms.local.bus import LocalMessageBus

    return LocalMessageBus
