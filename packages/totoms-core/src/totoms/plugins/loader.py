"""Load the plugin of a hyperscaler by name, and report in one line why it cannot be used.

Each plugin has a PluginManager of its own: with two on one manager, a `firstresult` hook would return the class of the
one registered last.
"""

from __future__ import annotations

import difflib
import inspect
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pluggy

from totoms.environment import set_resolver
from totoms.errors import PluginLoadError, TotoError
from totoms.logging.describe import printable
from totoms.messages.bus import MessageBus
from totoms.plugins import hookspecs
from totoms.plugins.discovery import InstalledPlugin, installed, select
from totoms.secrets.manager import SecretsManager
from totoms.storage.storage import CloudStorage

if TYPE_CHECKING:
    from totoms.plugins.configuration import HyperscalerConfiguration

__all__ = ["CAPABILITIES", "Backend", "InstalledPlugin", "configure", "installed", "load", "provide", "resolve"]

CAPABILITIES: Final = ("configuration", "secrets_manager", "cloud_storage", "message_bus")
"""What a plugin may provide. The name of the hook is ``totoms_`` and the capability."""
_INTERFACES: Final[dict[str, type[Any]]] = {
    "secrets_manager": SecretsManager,
    "cloud_storage": CloudStorage,
    "message_bus": MessageBus,
}

_Base = TypeVar("_Base")


@dataclass(frozen=True)
class Backend:
    """An imported plugin, whose hooks have valid names and signatures.

    The properties call the hooks when they are first read, so that a service loads only the SDKs it uses. Each is None
    if the plugin does not implement the hook, and raises `PluginLoadError` if the hook fails.

    Attributes:
        name: The value of ``hyperscaler``.
        distribution: The distribution that registers it.
        version: That distribution's version.
    """

    name: str
    distribution: str
    version: str
    _hooks: pluggy.HookRelay = field(repr=False, compare=False)

    @cached_property
    def configuration(self) -> type[HyperscalerConfiguration] | None:
        """The settings model."""
        found: type[HyperscalerConfiguration] | None = self._call_hook("configuration")
        return found

    @cached_property
    def secrets_manager(self) -> type[SecretsManager] | None:
        """The class that reads secrets."""
        found: type[SecretsManager] | None = self._call_hook("secrets_manager")
        return found

    @cached_property
    def cloud_storage(self) -> type[CloudStorage] | None:
        """The class that stores files."""
        found: type[CloudStorage] | None = self._call_hook("cloud_storage")
        return found

    @cached_property
    def message_bus(self) -> type[MessageBus] | None:
        """The class that publishes and receives messages."""
        found: type[MessageBus] | None = self._call_hook("message_bus")
        return found

    def __str__(self) -> str:
        return f"the plugin {self.name!r} ({self.distribution} {self.version})"

    def _call_hook(self, capability: str) -> Any:
        base = _INTERFACES.get(capability) or _settings_model()
        hook = getattr(self._hooks, f"totoms_{capability}")
        if not hook.get_hookimpls():
            return None
        call = f"totoms_{capability}() of {self}"
        try:
            returned = hook()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may call sys.exit
            raise PluginLoadError(f"{call} failed: {_explain(error)}.", resource=self.name) from error
        if not inspect.isclass(returned):
            what = "None" if returned is None else f"an object of the class {type(returned).__name__}"
            raise PluginLoadError(f"{call} returned {what}; it must return a class.", resource=self.name)
        if not issubclass(returned, base):
            raise PluginLoadError(
                f"{call} returned {returned.__name__}, which is not a subclass of totoms' {base.__name__}.",
                resource=self.name,
            )
        if missing := sorted(getattr(returned, "__abstractmethods__", ())):
            raise PluginLoadError(
                f"{call} returned {returned.__name__}, which does not implement {', '.join(missing)}.",
                resource=self.name,
            )
        return returned


_backends: Final[dict[str, Backend]] = {}
_loading: Final = threading.RLock()


def load(name: str) -> Backend:
    """Import the plugin of the hyperscaler `name`, once per process.

    Raises:
        PluginNotFound: It is not installed; the message lists those that are, and what to install.
        PluginLoadError: It cannot be used; the message names its distribution and the reason. A later call tries again.
    """
    backend = _backends.get(name)
    if backend is None:
        with _loading:
            backend = _backends.get(name)
            if backend is None:
                backend = _backends[name] = _load(select(name))
    return backend


def provide(name: str, plugin: object) -> None:
    """Register `plugin` as the hyperscaler `name` in this process, without a distribution. For tests.

    Args:
        name: The value of ``hyperscaler``. It takes precedence over an installed plugin of this name.
        plugin: An object with hook implementations, such as a module.

    Raises:
        PluginLoadError: A hook is unknown, or has the wrong signature.
    """
    with _loading:
        hooks = _register(plugin, name, f"plugin {name!r} (provided by the program)")
        _backends[name.lower()] = Backend(name.lower(), "provided", "by the program", hooks)


def resolve(name: str, interface: type[_Base]) -> type[_Base]:
    """Return the class that implements `interface` for the hyperscaler `name`.

    Raises:
        PluginError: The plugin is missing or broken, or lacks the capability.
    """
    backend = load(name)
    capability = next(capability for capability, base in _INTERFACES.items() if base is interface)
    found: type[_Base] | None = getattr(backend, capability)
    if found is None:
        raise PluginLoadError(
            f"The service needs a {capability.replace('_', ' ')}, and {backend} has none: "
            f"it does not implement totoms_{capability}.",
            resource=name,
        )
    return found


def configure(name: str, configuration: object = None) -> HyperscalerConfiguration:
    """Return the validated settings of the hyperscaler `name`, by default from environment variables.

    Raises:
        PluginError: The plugin is missing or broken.
        ConfigurationError: The settings are incomplete, invalid or another plugin's.
    """
    from totoms.plugins.settings import read_settings

    backend = load(name)
    return read_settings(str(backend), backend.configuration or _settings_model(), configuration)


def _settings_model() -> type[HyperscalerConfiguration]:
    from totoms.plugins.configuration import (
        HyperscalerConfiguration,  # pydantic-settings, a tenth of the time of `import totoms`
    )

    return HyperscalerConfiguration


def _load(plugin: InstalledPlugin) -> Backend:
    plugin.check_core_version()
    origin = f"plugin {plugin.name!r} ({plugin.origin})"
    try:
        module = plugin.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may call sys.exit
        raise PluginLoadError(
            f"The {origin} cannot be imported from {plugin.value}: {_explain(error)}.", resource=plugin.name
        ) from error
    return Backend(plugin.name.lower(), plugin.distribution, plugin.version, _register(module, plugin.name, origin))


def _register(module: object, name: str, origin: str) -> pluggy.HookRelay:
    manager = pluggy.PluginManager("totoms")
    manager.add_hookspecs(hookspecs)
    known = [f"totoms_{capability}" for capability in CAPABILITIES]
    try:
        manager.register(module, name=name)
        manager.check_pending()
        problem = _invalid_hook(module, manager, known)
    except pluggy.PluginValidationError as error:
        unknown = [hook.name for hook in manager.get_hookcallers(module) or () if not hook.has_spec()]
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1) or [", ".join(known)]
            problem = f"has an unknown hook {unknown[0]!r}; did you mean {close[0]}?"
        else:
            problem = f"has a hook with the wrong signature: {printable(' '.join(str(error).split()))}."
    if problem:
        raise PluginLoadError(f"The {origin} {problem}", resource=name)
    return manager.hook


def _invalid_hook(module: object, manager: pluggy.PluginManager, known: list[str]) -> str:
    # Mistakes that pluggy does not report.
    implemented = {hook.name: hook for hook in manager.get_hookcallers(module) or ()}
    for name in known:
        if name not in implemented and callable(getattr(module, name, None)):
            return f"has {name}, but not marked with @hookimpl of totoms.plugins.hookspecs."
    for name, hook in implemented.items():
        for implementation in hook.get_hookimpls():
            function = implementation.function
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                return f"declares {name} as async def; a hook is a plain function that returns a class."
    if not implemented:
        return (
            f"implements no hook; known are {', '.join(known)}, each marked with @hookimpl of totoms.plugins.hookspecs."
        )
    return ""


def _explain(error: BaseException) -> str:
    # The messages of these errors name code; others may quote a setting, so only their class and line are reported.
    if isinstance(error, TotoError):
        return printable(error.message).rstrip(".")
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} at {PurePath(error.filename or '?').name}:{error.lineno}"
    if isinstance(error, ImportError | AttributeError):
        return printable(f"{type(error).__name__}: {error}")
    if isinstance(error, SystemExit):
        return "it calls sys.exit" + _place(error)
    return type(error).__name__ + _place(error)


def _place(error: BaseException) -> str:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return f" at {PurePath(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last is not None else ""


set_resolver(resolve, configure)
