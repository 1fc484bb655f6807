"""What is imported in a fresh interpreter with two further plugins installed, which would report their import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.plugins import GOOD, install_plugin

SDKS = ("boto3", "botocore", "google.cloud", "azure", "grpc")
REPORT = """
import json, sys
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("skyline", "stratus"):
        (tmp_path / f"sdk_of_{name}.py").write_text("")
        source = GOOD.replace("return Bus", f"import sdk_of_{name}\n    return Bus")
        install_plugin(tmp_path, source, name=name, module=f"plugin_{name}")
    return tmp_path


def loaded(site: Path, source: str) -> set[str]:
    """Run `source` and return the modules it loaded of ours, of the plugins and of the clouds."""
    done = subprocess.run(
        [sys.executable, "-c", source + REPORT],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    modules: list[Any] = json.loads(done.stdout.splitlines()[-1])
    assert not [module for module in modules if module.startswith(SDKS)]
    return {module for module in modules if module.startswith(("totoms.local", "plugin_", "sdk_of_"))}


def test_importing_totoms_loads_no_plugin(site: Path) -> None:
    assert loaded(site, "import totoms") == set()


def test_local_loads_no_other_plugin(site: Path) -> None:
    source = "import totoms; totoms.SecretsManager(totoms.TotoEnvironment('local'))"

    modules = loaded(site, source)

    assert "totoms.local.secrets" in modules
    assert not {"totoms.local.messages.bus", "totoms.local.storage.storage"} & modules
    assert all(module.startswith("totoms.local") for module in modules)


def test_plugin_loads_neither_another_nor_local(site: Path) -> None:
    source = "import totoms; totoms.MessageBus(totoms.TotoEnvironment('skyline'))"

    assert loaded(site, source) == {"plugin_skyline", "sdk_of_skyline"}


def test_sdk_of_what_is_not_used_is_not_loaded(site: Path) -> None:
    assert loaded(site, "import totoms; totoms.TotoEnvironment('skyline')") == {"plugin_skyline"}


def test_listing_what_is_installed_loads_nothing(site: Path) -> None:
    assert loaded(site, "from totoms.plugins.discovery import installed; assert len(installed()) >= 3") == set()
