from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.plugins import Install, install_plugin
from totoms.plugins import loader as plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, in front; what was loaded from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    modules, backends = set(sys.modules), set(plugins._backends)
    yield folder
    for module in set(sys.modules) - modules:
        if module.startswith("plugin_"):
            del sys.modules[module]
    for name in set(plugins._backends) - backends:
        del plugins._backends[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Install a plugin from its source. Returns its name."""
    return functools.partial(install_plugin, site)
