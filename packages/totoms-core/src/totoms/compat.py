"""Import paths and names of totoms 1.5.0, for services written for it.

Driven by a table, :mod:`totoms.compat_table`. Each old module path is a small object in `sys.modules`, made when
`totoms` is imported, that finds a name when it is asked for it and warns where that is now. An old path never becomes
an attribute of the package where that is something else: `totoms.TotoMicroservice` is the class, and
``from totoms.TotoMicroservice import TotoMicroservice`` works beside it.
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

from totoms.compat_table import GONE, MODULES, NAMES, SETTINGS
from totoms.environment import TotoEnvironment, current_environment
from totoms.errors import PluginNotFound

if TYPE_CHECKING:
    from totoms.logging import TotoLogger
    from totoms.storage import CloudStorage

DEFAULT_OF_1_5: Final = "aws"
"""What 1.5.0 took for the hyperscaler when ``HYPERSCALER`` was not set."""


class DeprecatedName(FutureWarning):
    """A name or an import path of totoms 1.5.0 was used.

    Not a DeprecationWarning: Python hides these from everyone but the author of ``__main__``.
    """


_TODAY: Final = ("api", "auth", "secrets", "storage")
"""Modules of today that were packages in 1.5.0, with further modules below them."""


def install() -> None:
    """Put the old modules into `sys.modules`. Called once, as the last thing when `totoms` is imported."""
    today = {f"totoms.{name}": importlib.import_module(f"totoms.{name}") for name in _TODAY}
    for path, names in MODULES.items():
        full = f"totoms.{path}"
        if full in today:
            vars(today[full]).setdefault("__getattr__", _finder(full))
            continue
        module = sys.modules.setdefault(full, _OldModule(path, names))
        parent, _, leaf = full.rpartition(".")
        # Elsewhere `__getattr__` finds the module below. Where the name is or was another object, it stays that.
        if parent in today and leaf not in MODULES.get(parent.removeprefix("totoms."), ()):
            vars(today[parent]).setdefault(leaf, module)


def _finder(where: str) -> Callable[[str], Any]:
    def finder(name: str) -> Any:
        return _find(where, name)

    return finder


def lookup(name: str) -> Any:
    """Find an old name of the package itself, for its ``__getattr__``.

    Raises:
        ImportError: It has no successor; tells what to do instead. (``from totoms import`` would hide the message of
            an AttributeError.)
        AttributeError: There never was such a name.
    """
    if name in MODULES:
        return sys.modules[f"totoms.{name}"]
    return _find("totoms", name)


class _OldModule(ModuleType):
    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        super().__init__(f"totoms.{path}", "An import path of totoms 1.5.0, kept for services written for it.")
        self.__spec__ = ModuleSpec(self.__name__, None, origin="totoms.compat")
        self.__package__ = self.__spec__.parent
        self._names = names
        # What `import *` takes: not what is gone or belongs to a plugin, which would fail the whole line.
        self.__all__ = [name for name in names if name in NAMES]

    def __getattr__(self, name: str) -> Any:
        # Tools look for all kinds of names in all of sys.modules; what is not in the table is not there, in silence.
        # `totoms.evt.TotoMessage` is the class, as it was, and a module as well.
        below = None if name in self._names else sys.modules.get(f"{self.__name__}.{name}")
        return below if below is not None else _find(self.__name__, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


def _find(where: str, name: str) -> Any:
    if name in GONE:
        raise ImportError(f"{where}.{name} of totoms 1.5.0 is gone: {GONE[name]}", name=where)
    if name in SETTINGS:
        plugin = SETTINGS[name]
        _warn(where, name, f"TotoEnvironment({plugin!r}), which reads its settings from the environment variables")
        return _settings(name, plugin)
    if name not in NAMES:
        raise AttributeError(f"module {where!r} has no attribute {name!r}")
    module, _, attribute = NAMES[name].partition(":")
    _warn(where, name, attribute if module == "builtins" else f"from {module} import {attribute}")
    return getattr(importlib.import_module(module), attribute)


def _warn(where: str, name: str, instead: str) -> None:
    # Up to the line of the import: this function, _find, __getattr__ (and lookup), then the service.
    depth = 5 if where == "totoms" else 4
    warnings.warn(f"{where}.{name} is of totoms 1.5.0; use instead: {instead}", DeprecatedName, stacklevel=depth)


def _settings(name: str, plugin: str) -> type[Any]:
    from totoms.plugins import load

    try:
        found = load(plugin).configuration
    except PluginNotFound as error:
        # 1.5.0 came with every cloud, so services import all of these names and use one.
        message = error.message

        def refuse(_cls: type[Any], *_: Any, **__: Any) -> Any:
            raise PluginNotFound(message, resource=plugin)

        return type(name, (), {"__new__": refuse, "__module__": "totoms", "__doc__": message})
    if found is None:
        raise ImportError(f"the plugin {plugin!r} has no settings", name=name)
    return found


# --- what 1.5.0 had and the library has no other use for ---


def determine_environment() -> Any:
    """Return the settings (not the `TotoEnvironment`) of the hyperscaler that ``HYPERSCALER`` names, by default AWS.

    For ``TotoEnvironment(hyperscaler=..., hyperscaler_configuration=determine_environment())`` as 1.5.0 had it; to
    leave `environment` out is simpler, and then the default is the local backend.

    Raises:
        ConfigurationError: No such plugin, or its settings are incomplete.
    """
    return TotoEnvironment(os.environ.get("HYPERSCALER") or DEFAULT_OF_1_5).hyperscaler_configuration


class CloudStorageFactory:
    """Makes a `CloudStorage` for a hyperscaler by name."""

    def __init__(self, logger: TotoLogger | None = None, cid: str = "") -> None:
        self.logger = logger
        self.cid = cid

    def create_storage(self, hyperscaler: str, bucket_name: str) -> CloudStorage:
        """Return the storage of the bucket, in the service's own environment where that is of the same hyperscaler."""
        from totoms.storage import CloudStorage

        environment = current_environment()
        if environment.hyperscaler != hyperscaler.lower():
            environment = TotoEnvironment(hyperscaler)
        return CloudStorage(bucket_name, self.logger, self.cid or None, environment=environment)


def singleton(cls: Callable[..., Any]) -> Callable[..., Any]:
    """Have every call of a class give the instance that the first one made."""
    instances: list[Any] = []

    def instance(*args: Any, **kwargs: Any) -> Any:
        if not instances:
            instances.append(cls(*args, **kwargs))
        return instances[0]

    return instance
