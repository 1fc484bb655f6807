"""What all tests share: a clean environment, and the table of figures that the fault tests print."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from support.emulators import tell_missing

_FIGURES: list[tuple[str, str]] = []

# What the developer's shell may have set must not reach a test.
_FOREIGN = (
    *("HYPERSCALER", "ENVIRONMENT", "PORT", "SERVICE_BASE_URL", "TOTOMS_LOCAL_ROOT", "AWS_REGION", "GCP_PID"),
    *("LOG_LEVEL", "LOG_LEVELS"),
)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOTOMS_LOCAL_ROOT", str(tmp_path_factory.mktemp("totoms-root")))


@pytest.fixture
def local_root() -> str:
    """The folder of the local backend in this test."""
    return os.environ["TOTOMS_LOCAL_ROOT"]


@pytest.fixture
def figure() -> Callable[[str, str], None]:
    """Record a line of the table printed at the end: a fault, and the figures that were seen."""
    return lambda fault, seen: _FIGURES.append((fault, seen))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tell_missing(terminalreporter)
    if _FIGURES:
        terminalreporter.section("faults and figures")
        for fault, seen in _FIGURES:
            terminalreporter.write_line(f"{fault:<58} {seen}")
