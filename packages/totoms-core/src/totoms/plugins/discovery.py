"""Find the installed hyperscaler plugins by the metadata of distributions, without importing them.

A plugin is an entry point in the group ``totoms.hyperscalers``
(https://packaging.python.org/en/latest/specifications/entry-points/).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any, Final

from totoms.errors import PluginLoadError, PluginNotFound
from totoms.plugins.hookspecs import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint

CORE: Final = "totoms"
"""The core's own distribution, whose extras name its plugins."""
_UNNAMED: Final = "a distribution without a name"


@dataclass(frozen=True)
class InstalledPlugin:
    """One entry point of one distribution.

    Attributes:
        name: The value of ``hyperscaler`` that selects it.
        distribution: The distribution that registers it.
        version: That distribution's version.
        value: The module, or the object in a module, that it points to.
    """

    name: str
    distribution: str
    version: str
    value: str
    _entry: EntryPoint = field(repr=False, compare=False)
    _requires: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def origin(self) -> str:
        """The distribution with its version, such as ``totoms-aws 2.0.0``, for messages."""
        return f"{self.distribution} {self.version}".strip()

    def check_core_version(self) -> None:
        """Check that the installed version of ``totoms`` meets the distribution's requirement.

        Raises:
            PluginLoadError: It requires another version of totoms.
        """
        if _normal(self.distribution) == CORE or not (core := _core()):
            return
        # Imported here, because a service on `local` does not need it.
        from packaging.requirements import InvalidRequirement, Requirement

        for line in self._requires:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            if _normal(requirement.name) != CORE or (
                requirement.marker and not requirement.marker.evaluate({"extra": ""})
            ):
                continue
            if not requirement.specifier.contains(core.version, prereleases=True):
                raise PluginLoadError(
                    f"The plugin {self.name!r} ({self.origin}) requires totoms{requirement.specifier}; "
                    f"installed is totoms {core.version}.",
                    resource=self.name,
                )

    def load(self) -> Any:
        """Import the module or object of the entry point. Raises what the plugin's code raises."""
        return self._entry.load()


def installed() -> list[InstalledPlugin]:
    """List the installed plugins by name.

    If a distribution is on ``sys.path`` twice, only the first counts: Python imports that one.
    """
    return _scan()[0]


def select(name: str) -> InstalledPlugin:
    """Return the plugin `name`, ignoring case.

    Raises:
        PluginNotFound: It is not installed; the message lists those that are, a similar name, and what to install.
        PluginLoadError: Two distributions register the name.
    """
    plugins, damaged = _scan()
    found = [plugin for plugin in plugins if plugin.name.lower() == name.lower()]
    if not found:
        raise PluginNotFound(_not_found(name, plugins, damaged), resource=name)
    if len(found) > 1:
        origins = " and ".join(f"{plugin.origin} ({plugin.value})" for plugin in found)
        raise PluginLoadError(
            f"The hyperscaler {name!r} is registered more than once: by {origins}. Uninstall one of them.",
            resource=name,
        )
    return found[0]


def _scan() -> tuple[list[InstalledPlugin], list[str]]:
    # Not `entry_points()`, which fails for all if the metadata of any distribution is unreadable.
    from importlib_metadata import distributions

    plugins: dict[str, dict[tuple[str, str], InstalledPlugin]] = {}
    damaged = []
    for distribution in distributions():
        try:
            entries = list(distribution.entry_points.select(group=ENTRY_POINT_GROUP))
        except Exception:
            damaged.append(_identity(distribution)[0])
            continue
        if entries:
            distribution_name, version, requires = _identity(distribution)
            plugins.setdefault(
                _normal(distribution_name),
                {
                    (entry.name, entry.value): InstalledPlugin(
                        entry.name, distribution_name, version, entry.value, entry, requires
                    )
                    for entry in entries
                },
            )
    flat = [plugin for entries in plugins.values() for plugin in entries.values()]
    return sorted(flat, key=lambda plugin: (plugin.name, plugin.distribution)), damaged


def _identity(distribution: Any) -> tuple[str, str, tuple[str, ...]]:
    # Not by `distribution.metadata`, whose parser takes 20 ms to import.
    try:
        metadata = HeaderParser().parsestr(
            distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        )
        requires = tuple(metadata.get_all("Requires-Dist") or ())
        return metadata["Name"] or _UNNAMED, metadata["Version"] or "", requires
    except Exception:  # METADATA does not exist or is not text
        return _UNNAMED, "", ()


def _normal(name: str) -> str:
    # https://packaging.python.org/en/latest/specifications/name-normalization/
    return re.sub(r"[-_.]+", "-", name).lower()


def _core() -> Any:
    # A Distribution (IDistribution in later versions of importlib-metadata), or None.
    from importlib_metadata import PackageNotFoundError, distribution

    try:
        return distribution(CORE)
    except PackageNotFoundError:  # run from its sources, not installed
        return None


def _extras() -> Iterator[str]:
    # The extras of one plugin, such as `totoms[aws]`, which requires `totoms-aws`; so not `all`.
    core = _core()
    if core is not None:
        required = " ".join(core.requires or ()).lower()
        for extra in core.metadata.get_all("Provides-Extra") or ():
            if re.search(rf"\b{CORE}-{re.escape(extra)}\b", required):
                yield extra


def _not_found(name: str, plugins: list[InstalledPlugin], damaged: list[str]) -> str:
    known = ", ".join(f"{plugin.name} ({plugin.origin})" for plugin in plugins) or "none"
    text = f"No plugin for the hyperscaler {name!r} is installed. Installed: {known}."
    extras = list(_extras())
    close = difflib.get_close_matches(name.lower(), {*extras, *(plugin.name for plugin in plugins)}, n=1, cutoff=0.5)
    if close:
        wanted = close[0]
        if wanted != name.lower():
            text += f" Did you mean {wanted!r}?"
        if wanted not in {plugin.name for plugin in plugins}:
            text += f" Install it with: pip install '{CORE}[{wanted}]'"
    if damaged:
        text += f" The metadata of {', '.join(sorted(damaged))} cannot be read."
    return text
