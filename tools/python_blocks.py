"""Write the Python blocks of Markdown pages into a folder, where strict type checkers read them as a user's files.

``python tools/python_blocks.py FOLDER PAGE...``. A copy of the example's service, which some blocks import, is in the
same folder. A block that quotes a file, below a line with the file's name, is left out: the file is checked itself, and
a test compares the two.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

_BLOCK = re.compile(r"(^`[\w./-]+`:\n\n)?^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SERVICE = Path(__file__).parents[1] / "examples/blog/service.py"
_STUBS = {
    "uvicorn_worker": "from typing import Any\nclass UvicornWorker:\n    CONFIG_KWARGS: dict[str, Any]\n",
    "totoms_example/__init__": "",
    "totoms_example/configuration": "from totoms.plugin import HyperscalerConfiguration\n"
    "class ExampleConfiguration(HyperscalerConfiguration): ...\n",
    "totoms_example/secrets": "from totoms import SecretsManager\nclass ExampleSecretsManager(SecretsManager): ...\n",
    "totoms_example/storage": "from totoms import CloudStorage\nclass ExampleCloudStorage(CloudStorage): ...\n",
    "totoms_example/bus": "from totoms import MessageBus\nclass ExampleMessageBus(MessageBus): ...\n",
    "example_harness": "from totoms.testing import MessageBusHarness\n"
    "def ExampleMessageBusHarness(server_url: str) -> MessageBusHarness: ...\n",
}
"""Stubs of a package without types, and of what a reader writes: a plugin and its harness."""
_PYRIGHT = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}


def main(folder: str, *pages: str) -> None:
    """Write each block of `pages` into a file of its own in `folder`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.py"):
        old.unlink()
    for page in map(Path, pages):
        for number, (quoted, block) in enumerate(_BLOCK.findall(page.read_text())):
            if not quoted:
                (target / f"{page.parent.name}_{page.stem}_{number}.py").write_text(block)
    for name, stub in _STUBS.items():
        path = target / f"{name}.pyi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(stub)
    shutil.copy(_SERVICE, target / "service.py")
    (target / "pyrightconfig.json").write_text(json.dumps(_PYRIGHT))


if __name__ == "__main__":
    main(*sys.argv[1:])
