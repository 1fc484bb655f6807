"""Which hyperscaler plugins are installed, told by the metadata of distributions alone: nothing is imported.

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
from totoms.hookspecs import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint

CORE: Final = "totoms"
"""The core's own distribution, whose extras name the plugins that belong to it."""
_UNNAMED: Final = "a distribution without a name"


@dataclass(frozen=True)
class InstalledPlugin:
    """One entry point of one distribution.

    Attributes:
        name: The value of ``hyperscaler`` that selects it.
        distribution: The distribution that registers it.
        version: That distribution's version.
        value: What it points to: a module, or an object in one.
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
        """Compare what the distribution requires of ``totoms`` with the one installed, as pip would have.

        Raises:
            PluginLoadError: It was written for another version of totoms.
        """
        if _normal(self.distribution) == CORE or not (core := _core()):
            return
        # Imported here: only a plugin of another distribution needs it, and not at every start on `local`.
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
        """Import what the entry point names. Raises whatever the plugin's code raises."""
        return self._entry.load()


def installed() -> list[InstalledPlugin]:
    """List the plugins that are installed, by name, without importing any.

    Of a distribution that is found twice on ``sys.path`` only the first counts, as it is the one Python imports.
    """
    return _scan()[0]


def select(name: str) -> InstalledPlugin:
    """Find the plugin `name`; upper and lower case are the same.

    Raises:
        PluginNotFound: None is installed; tells what is, a close name, and what to install.
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
    # Not `entry_points()`: there one unreadable distribution, whoever's, would hide all the plugins.
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
    flat = [plugin for of_one in plugins.values() for plugin in of_one.values()]
    return sorted(flat, key=lambda plugin: (plugin.name, plugin.distribution)), damaged


def _identity(distribution: Any) -> tuple[str, str, tuple[str, ...]]:
    # Read here, and not by `distribution.metadata`, whose parser of e-mail headers takes 20 ms to import.
    try:
        metadata = HeaderParser().parsestr(
            distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        )
        requires = tuple(metadata.get_all("Requires-Dist") or ())
        return metadata["Name"] or _UNNAMED, metadata["Version"] or "", requires
    except Exception:  # no METADATA, or one that is no text
        return _UNNAMED, "", ()


def _normal(name: str) -> str:
    # https://packaging.python.org/en/latest/specifications/name-normalization/
    return re.sub(r"[-_.]+", "-", name).lower()


def _core() -> Any:
    # A Distribution, called IDistribution by later versions of importlib-metadata, or None.
    from importlib_metadata import PackageNotFoundError, distribution

    try:
        return distribution(CORE)
    except PackageNotFoundError:  # run from its sources, without being installed
        return None


def _extras() -> Iterator[str]:
    # The extras that bring a plugin, and so not `all`: `totoms[aws]` requires `totoms-aws`.
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
