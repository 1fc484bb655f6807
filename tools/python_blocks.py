"""Write the Python blocks of Markdown pages into a folder, where strict type checkers read them as a user's files.

``python tools/python_blocks.py FOLDER PAGE...``; beside them stands the example's service, which some blocks import.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SERVICE = Path(__file__).parents[1] / "examples/blog/service.py"
_STUBS = {"uvicorn_worker": "from typing import Any\nclass UvicornWorker:\n    CONFIG_KWARGS: dict[str, Any]\n"}
"""Stubs of packages without types."""
_PYRIGHT = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}


def main(folder: str, *pages: str) -> None:
    """Write each block of `pages` into a file of its own in `folder`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.py"):
        old.unlink()
    for page in map(Path, pages):
        for number, block in enumerate(_BLOCK.findall(page.read_text())):
            (target / f"{page.stem}_{number}.py").write_text(block)
    for name, stub in _STUBS.items():
        (target / f"{name}.pyi").write_text(stub)
    shutil.copy(_SERVICE, target / "service.py")
    (target / "pyrightconfig.json").write_text(json.dumps(_PYRIGHT))


if __name__ == "__main__":
    main(*sys.argv[1:])
