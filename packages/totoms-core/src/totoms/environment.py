"""Where a service runs: the hyperscaler's name and that hyperscaler's settings.

This module knows names only. What a name stands for is found by :mod:`totoms.plugins`, which
registers itself here as the resolver, so that imports keep running one way.
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
_T = TypeVar("_T")


@dataclass(frozen=True)
class TotoEnvironment:
    """Where the service runs.

    Args:
        hyperscaler: The name of an installed plugin: ``local``, ``aws``, ``gcp``, ``azure`` or a third party's.
        hyperscaler_configuration: That plugin's settings; left out, they are read from the environment.

    Raises:
        ConfigurationError: No such plugin, its settings are incomplete, or they are another plugin's.
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
        return cls(os.environ.get("HYPERSCALER") or DEFAULT_HYPERSCALER)


Resolver = Callable[[str, type[Any]], type[Any]]
_resolve: Resolver | None = None
_configure: Callable[[str, Any], Any] = lambda _name, configuration: configuration  # noqa: E731 - replaced by the loader


def set_resolver(resolve: Resolver, configure: Callable[[str, Any], Any]) -> None:
    """Register what turns a hyperscaler's name into its implementations. Called by :mod:`totoms.plugins`.

    Args:
        resolve: From a name and an interface to the class that implements it.
        configure: From a name and a configuration or None to a validated configuration.
    """
    global _resolve, _configure
    _resolve, _configure = resolve, configure


def implementation(interface: type[_T], environment: TotoEnvironment) -> type[_T]:
    """Return the class that implements `interface` in `environment`.

    Raises:
        PluginError: The plugin is missing, broken, or has no such capability.
    """
    if _resolve is None:
        raise ConfigurationError("No plugin loader: import totoms, not one of its modules alone.")
    return _resolve(environment.hyperscaler, interface)


scoped: Final[ContextVar[TotoEnvironment | None]] = ContextVar("totoms_environment", default=None)
"""The environment of the service at work: of each request and message, and of what they start."""
_default: TotoEnvironment | None = None


def set_default_environment(environment: TotoEnvironment | None) -> None:
    """Make `environment` the one of this process, for code outside any service's own tasks."""
    global _default
    _default = environment


@contextlib.contextmanager
def scope_environment(environment: TotoEnvironment) -> Iterator[None]:
    """Make `environment` the current one within the block and in the tasks it starts: several services, one process."""
    token = scoped.set(environment)
    try:
        yield
    finally:
        scoped.reset(token)


def current_environment() -> TotoEnvironment:
    """Return the environment of the service at work, else the process's, else the one variables describe."""
    return scoped.get() or _default or TotoEnvironment.from_variables()
