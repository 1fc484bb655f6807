"""Where a service runs: the hyperscaler's name and its settings.

:mod:`totoms.plugins.loader` finds the plugin of a name. It registers itself here, so that this module does not import
it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from totoms.errors import ConfigurationError

DEFAULT_HYPERSCALER: Final = "local"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_T = TypeVar("_T")


@dataclass(frozen=True)
class TotoEnvironment:
    """Where the service runs.

    Args:
        hyperscaler: The name of an installed plugin: ``local``, ``aws``, ``gcp``, ``azure`` or a third party's.
        hyperscaler_configuration: The plugin's settings; by default read from environment variables.

    Raises:
        ConfigurationError: The plugin is not installed, or its settings are incomplete or another plugin's.
    """

    hyperscaler: str
    hyperscaler_configuration: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.hyperscaler, str) or not self.hyperscaler:
            raise ConfigurationError("TotoEnvironment.hyperscaler must be the name of an installed plugin.")
        configuration = _configure(self.hyperscaler.lower(), self.hyperscaler_configuration)
        object.__setattr__(self, "hyperscaler", self.hyperscaler.lower())
        object.__setattr__(self, "hyperscaler_configuration", configuration)

    def __hash__(self) -> int:
        return hash((self.hyperscaler, repr(self.hyperscaler_configuration)))

    @classmethod
    def from_variables(cls) -> TotoEnvironment:
        """Read ``HYPERSCALER`` (default ``local``) and the plugin's own environment variables."""
        return cls(cls.name_of_variable())

    @staticmethod
    def name_of_variable() -> str:
        """Return what ``HYPERSCALER`` says, else ``local``."""
        return os.environ.get("HYPERSCALER") or DEFAULT_HYPERSCALER


Resolver = Callable[[str, type[Any]], type[Any]]
_resolve: Resolver | None = None
_configure: Callable[[str, Any], Any] = lambda _name, configuration: configuration  # noqa: E731 - replaced by the loader


def set_resolver(resolve: Resolver, configure: Callable[[str, Any], Any]) -> None:
    """Register the functions that find a plugin's classes and settings. Called by :mod:`totoms.plugins.loader`.

    Args:
        resolve: Returns the class that implements an interface for the hyperscaler of a name.
        configure: Returns the validated settings for a name, and settings or None.
    """
    global _resolve, _configure
    _resolve, _configure = resolve, configure


def implementation(interface: type[_T], environment: TotoEnvironment) -> type[_T]:
    """Return the class that implements `interface` in `environment`.

    Raises:
        PluginError: The plugin is missing or broken, or lacks the capability.
    """
    if _resolve is None:
        raise ConfigurationError("The plugin loader is not imported: import totoms, not only one of its modules.")
    return _resolve(environment.hyperscaler, interface)


scoped: Final[ContextVar[TotoEnvironment | None]] = ContextVar("totoms_environment", default=None)
"""The environment of the service whose request or message is being handled, inherited by tasks and threads."""
_default: TotoEnvironment | None = None


def set_default_environment(environment: TotoEnvironment | None) -> None:
    """Set the environment for code of this process outside any service's tasks."""
    global _default
    _default = environment


@contextlib.contextmanager
def scope_environment(environment: TotoEnvironment) -> Iterator[None]:
    """Set the current environment in the block and the tasks it starts, for several services in one process."""
    token = scoped.set(environment)
    try:
        yield
    finally:
        scoped.reset(token)


def for_development(environment: Any) -> bool:
    """Return whether services listen on this machine only unless told otherwise, as on the local backend."""
    return getattr(environment.hyperscaler_configuration, "default_host", None) in LOOPBACK


def current_environment() -> TotoEnvironment:
    """Return the environment of the current service, else the process's, else that of the environment variables."""
    return scoped.get() or _default or TotoEnvironment.from_variables()
