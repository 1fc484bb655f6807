"""Import paths and names of totoms 1.5.0, for services written for it.

The names are in a table, :mod:`totoms.compat.table`. For each old module, `import totoms` puts a small object into
`sys.modules`, which looks a name up and warns where it is now. An old path does not replace an attribute of the
package: `totoms.TotoMicroservice` is the class, and ``from totoms.TotoMicroservice import TotoMicroservice`` works too.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from totoms.compat.table import GONE, MODULES, NAMES, SETTINGS
from totoms.environment import TotoEnvironment, current_environment
from totoms.errors import PluginNotFound

if TYPE_CHECKING:
    from totoms.logging.logger import TotoLogger
    from totoms.storage.storage import CloudStorage

DEFAULT_OF_1_5: Final = "aws"
"""The hyperscaler of 1.5.0 if ``HYPERSCALER`` was not set."""


class DeprecatedName(FutureWarning):
    """A name or an import path of totoms 1.5.0 was used.

    Not a DeprecationWarning: Python shows those in ``__main__`` only.
    """


_COMMON_PACKAGES: Final = ("auth", "secrets", "storage")
"""Packages that 1.5.0 had as well, with other modules in them."""


def install() -> None:
    """Put the old modules into `sys.modules`. Called once, at the end of `import totoms`."""
    packages = {f"totoms.{name}": importlib.import_module(f"totoms.{name}") for name in _COMMON_PACKAGES}
    for path, names in MODULES.items():
        full = f"totoms.{path}"
        if full in packages:
            vars(packages[full]).setdefault("__getattr__", _finder(full))
            continue
        module = sys.modules.setdefault(full, _OldModule(path, names))
        parent, _, leaf = full.rpartition(".")
        # Old packages find their modules by `__getattr__`. Do not replace a name that is or was another object.
        if parent in packages and leaf not in MODULES.get(parent.removeprefix("totoms."), ()):
            vars(packages[parent]).setdefault(leaf, module)


def _finder(module: str) -> Callable[[str], Any]:
    def finder(name: str) -> Any:
        return _find(module, name)

    return finder


def lookup(name: str) -> Any:
    """Find an old name of the package itself, for its ``__getattr__``.

    Raises:
        ImportError: It has no successor; the message says what to do instead. (``from totoms import`` would hide the
            message of an AttributeError.)
        AttributeError: 1.5.0 had no such name.
    """
    if name in MODULES:
        return sys.modules[f"totoms.{name}"]
    return _find("totoms", name)


class _OldModule(ModuleType):
    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        super().__init__(f"totoms.{path}", "An import path of totoms 1.5.0, kept for services written for it.")
        self.__spec__ = ModuleSpec(self.__name__, None, origin="totoms.compat.loader")
        self.__package__ = self.__spec__.parent
        self._names = names
        # For `import *`: without removed names and plugins' settings, which would fail the whole statement.
        self.__all__ = [name for name in names if name in NAMES]

    def __getattr__(self, name: str) -> Any:
        # `totoms.evt.TotoMessage` is both a class and a module; the class takes precedence, as in 1.5.0.
        submodule = None if name in self._names else sys.modules.get(f"{self.__name__}.{name}")
        return submodule if submodule is not None else _find(self.__name__, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


def _find(module: str, name: str) -> Any:
    if name in GONE:
        raise ImportError(f"{module}.{name} of totoms 1.5.0 was removed: {GONE[name]}", name=module)
    if name in SETTINGS:
        plugin = SETTINGS[name]
        _warn(module, name, f"TotoEnvironment({plugin!r}), which reads its settings from the environment variables")
        return _settings(name, plugin)
    if name not in NAMES:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new_module, _, attribute = NAMES[name].partition(":")
    _warn(module, name, attribute if new_module == "builtins" else f"from {new_module} import {attribute}")
    return getattr(importlib.import_module(new_module), attribute)


def _warn(module: str, name: str, instead: str) -> None:
    # Show the line of the import: skip this function, _find, __getattr__ and lookup.
    depth = 5 if module == "totoms" else 4
    warnings.warn(f"{module}.{name} is of totoms 1.5.0; use instead: {instead}", DeprecatedName, stacklevel=depth)


def _settings(name: str, plugin: str) -> type[Any]:
    from totoms.plugins.loader import load

    try:
        found = load(plugin).configuration
    except PluginNotFound as error:
        # 1.5.0 included every cloud, so a service may import all of these names and use one of them.
        message = error.message

        def refuse(_cls: type[Any], *_: Any, **__: Any) -> Any:
            raise PluginNotFound(message, resource=plugin)

        return type(name, (), {"__new__": refuse, "__module__": "totoms", "__doc__": message})
    if found is None:
        raise ImportError(f"the plugin {plugin!r} has no settings", name=name)
    return found


# --- names of 1.5.0 without a successor ---


def determine_environment() -> Any:
    """Return the settings (not the `TotoEnvironment`) of the hyperscaler that ``HYPERSCALER`` names, by default AWS.

    For ``TotoEnvironment(hyperscaler=..., hyperscaler_configuration=determine_environment())`` of 1.5.0. It is simpler
    to omit `environment`; then the default is the local backend.

    Raises:
        ConfigurationError: The plugin is not installed, or its settings are incomplete.
    """
    return TotoEnvironment(os.environ.get("HYPERSCALER") or DEFAULT_OF_1_5).hyperscaler_configuration


class CloudStorageFactory:
    """Creates a `CloudStorage` for a hyperscaler by name."""

    def __init__(self, logger: TotoLogger | None = None, cid: str = "") -> None:
        self.logger = logger
        self.cid = cid

    def create_storage(self, hyperscaler: str, bucket_name: str) -> CloudStorage:
        """Return the storage of the bucket, in the service's own environment if it has the same hyperscaler."""
        from totoms.storage.storage import CloudStorage

        environment = current_environment()
        if environment.hyperscaler != hyperscaler.lower():
            environment = TotoEnvironment(hyperscaler)
        return CloudStorage(bucket_name, self.logger, self.cid or None, environment=environment)


def singleton(cls: Callable[..., Any]) -> Callable[..., Any]:
    """Make every call of a class return the same instance."""
    instances: list[Any] = []

    def instance(*args: Any, **kwargs: Any) -> Any:
        if not instances:
            instances.append(cls(*args, **kwargs))
        return instances[0]

    return instance
