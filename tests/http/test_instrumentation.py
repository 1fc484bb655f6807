"""Tools that hook into FastAPI see in a service what they see in a plain FastAPI app."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
NAMES = {
    "sentry": ["/ok", "/item/{number}", "/echo", "/fail", "/fail/{number}"],
    "otel": ["GET /ok", "GET /item/{number}", "POST /echo", "GET /fail", "GET /fail/{number}"],
}


@functools.cache
def seen(tool: str, app: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "support.http.instrumented", tool, app],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=TESTS,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("app", ["plain", "totoms", "totoms-middleware"])
@pytest.mark.parametrize("tool", ["sentry", "sentry-late", "otel", "otel-global"])
def test_tool_sees_every_request_and_every_exception_once(tool: str, app: str) -> None:
    found, names = seen(tool, app), NAMES[tool.partition("-")[0]]
    assert found["complaints"] == []
    assert Counter(found["transactions"]) == dict.fromkeys(names, 10)
    # By its name, and the name of the transaction that it belongs to.
    assert Counter(map(tuple, found["exceptions"])) == {("RuntimeError", name): 10 for name in names if "fail" in name}
