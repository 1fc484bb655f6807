"""Distributions made by hand: real folders with real metadata on sys.path, found by importlib's own machinery."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path

GROUP = "totoms.hyperscalers"
_numbers = itertools.count()

Install = Callable[..., str]

HOOKED = "from totoms.plugins.hookspecs import hookimpl\n"

BUS = """
from totoms.messages.bus import MessageBus

class Bus(MessageBus):
    async def _publish(self, batch):
        return [None] * len(batch)

    async def _subscribe(self, subscription, *, create):
        pass
"""
"""Source of a message bus that has all it must have."""

GOOD = f"""
{BUS}
@hookimpl
def totoms_message_bus():
    return Bus
"""
"""Source of a plugin that has a message bus and nothing else."""


def write_distribution(
    site: Path, distribution: str, *, version: str = "1.0", entry_points: str = "", requires: tuple[str, ...] = ()
) -> Path:
    """Write the metadata of an installed distribution, as an installer does."""
    folder = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / "entry_points.txt").write_text(entry_points)
    return folder


def install_plugin(
    site: Path,
    source: str | None,
    *,
    name: str = "",
    distribution: str = "",
    module: str = "",
    version: str = "1.0",
    requires: tuple[str, ...] = (),
) -> str:
    """Install a plugin with this source into `site`. Returns the name it goes by, one of its own when left out."""
    number = next(_numbers)
    name = name or f"cloud{number}"
    module = module or f"plugin_{number}"
    if source is not None:
        (site / f"{module}.py").write_text(HOOKED + textwrap.dedent(source))
    entry_points = f"[{GROUP}]\n{name} = {module}\n"
    distribution = distribution or f"totoms-{name}"
    write_distribution(site, distribution, version=version, entry_points=entry_points, requires=requires)
    return name
