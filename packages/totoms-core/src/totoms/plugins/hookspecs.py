"""The hooks that a hyperscaler plugin may implement.

A plugin is a module named by an entry point in the group ``totoms.hyperscalers``; the entry point's name is the value
of ``hyperscaler``. Its hooks return *classes*, which the core instantiates. Import SDKs inside the hooks or in the
modules of these classes. Every hook is optional: a service that needs one the plugin lacks does not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

from totoms.messages.bus import MessageBus
from totoms.secrets.manager import SecretsManager
from totoms.storage.storage import CloudStorage

if TYPE_CHECKING:
    from totoms.plugins.configuration import HyperscalerConfiguration

ENTRY_POINT_GROUP: Final = "totoms.hyperscalers"

hookspec = pluggy.HookspecMarker("totoms")
hookimpl = pluggy.HookimplMarker("totoms")


@hookspec(firstresult=True)
def totoms_configuration() -> type[HyperscalerConfiguration]:  # type: ignore[empty-body]
    """Return the settings model, which without arguments reads its environment variables."""


@hookspec(firstresult=True)
def totoms_secrets_manager() -> type[SecretsManager]:  # type: ignore[empty-body]
    """Return the class that reads secrets."""


@hookspec(firstresult=True)
def totoms_cloud_storage() -> type[CloudStorage]:  # type: ignore[empty-body]
    """Return the class that stores files."""


@hookspec(firstresult=True)
def totoms_message_bus() -> type[MessageBus]:  # type: ignore[empty-body]
    """Return the class that publishes and receives messages."""
