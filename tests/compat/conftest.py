from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).parents[1] / "support"

Fresh = Callable[[list[str]], list[dict[str, Any]]]


def run_fresh(sources: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-P", str(SUPPORT / "fresh_imports.py")],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="session")
def fresh() -> Fresh:
    """Run each piece of source where totoms was not imported yet."""
    return run_fresh
