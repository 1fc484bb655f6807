"""The seam: what a hyperscaler plugin may implement.

A plugin is a module named by an entry point in the group ``totoms.hyperscalers``; the entry point's
name is the value of ``hyperscaler``. Its hooks return *classes*, which the core constructs. SDK
imports belong inside the hooks or in the modules of the classes they return. Every hook is optional:
a capability that no hook provides is told at start, when a service needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

from totoms.bus import MessageBus
from totoms.secrets import SecretsManager
from totoms.storage import CloudStorage

if TYPE_CHECKING:
    from totoms.hyperscaler import HyperscalerConfiguration

ENTRY_POINT_GROUP: Final = "totoms.hyperscalers"

hookspec = pluggy.HookspecMarker("totoms")
hookimpl = pluggy.HookimplMarker("totoms")


@hookspec(firstresult=True)
def totoms_configuration() -> type[HyperscalerConfiguration]:  # type: ignore[empty-body]
    """Return the settings model; constructed without arguments it reads its environment variables."""


@hookspec(firstresult=True)
def totoms_secrets_manager() -> type[SecretsManager]:  # type: ignore[empty-body]
    """Return the class that reads secrets."""


@hookspec(firstresult=True)
def totoms_cloud_storage() -> type[CloudStorage]:  # type: ignore[empty-body]
    """Return the class that stores files."""


@hookspec(firstresult=True)
def totoms_message_bus() -> type[MessageBus]:  # type: ignore[empty-body]
    """Return the class that publishes and receives messages."""
