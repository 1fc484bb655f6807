"""The code blocks of a Markdown page, as modules and as commands."""

from __future__ import annotations

import itertools
import re
import sys
import types
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_numbers = itertools.count()


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the blocks of a page, such as ``how-to/ordering.md``, in their order."""
    found = [text for name, text in _BLOCK.findall((DOCS / page).read_text()) if name == language]
    assert found, f"{page} has no block of {language}"
    return found


def run(page: str, number: int = 0) -> Any:
    """Run one Python block of a page as a module and return it. Each call makes another module."""
    block = blocks(page)[number]
    module = types.ModuleType(f"block_{next(_numbers)}")
    sys.modules[module.__name__] = module  # where annotations are looked up
    exec(compile(block, f"docs/{page}: block {number}", "exec"), vars(module))
    return module


def commands(page: str) -> list[str]:
    """Return the commands of a page's ``bash`` blocks, with continued lines joined."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
