"""Each promise in the documentation names a test, and that test exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "security",
    "explanation/promises",
    "deploying",
    "messages",
    "console",
    "operations/logs",
    "operations/runbook",
]
KIT = ROOT / "packages/totoms-core/src/totoms/testing"
LEAST = {
    "security": 30,
    "explanation/promises": 9,
    "deploying": 12,
    "messages": 14,
    "console": 8,
    "operations/logs": 12,
    "operations/runbook": 10,
}
"""Rows that each page has at least, so that a table that lost its head does not pass for an empty one."""


def _rows(page: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    inside = False
    for line in (ROOT / f"docs/{page}.md").read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if cells[:2] == ["Promise", "Test"]:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|- "):
            rows.append((cells[0], cells[1]))
    return rows


@cache
def _functions(path: Path) -> frozenset[str]:
    # Not by `ast`, which Python 3.11 may fail in a process where something has recursed too deeply (gh-106905).
    return frozenset(re.findall(r"^ *(?:async )?def (\w+)\(", path.read_text(), re.MULTILINE))


@cache
def _of_the_kit() -> frozenset[str]:
    return frozenset(name for path in KIT.rglob("*.py") for name in _functions(path))


def _exists(test: str) -> bool:
    where, _, name = test.partition("::")
    if where.startswith("totoms.testing."):
        return name in _of_the_kit()
    path = ROOT / where
    return path.is_file() and bool(name) and name in _functions(path)


@pytest.mark.parametrize("page", PAGES)
def test_page_says_what_it_promises_in_a_table(page: str) -> None:
    assert len(_rows(page)) >= LEAST[page]


@pytest.mark.parametrize(
    ("promise", "tests"), [pytest.param(*row, id=f"{page}: {row[0]}") for page in PAGES for row in _rows(page)]
)
def test_promise_has_a_test(promise: str, tests: str) -> None:
    named = re.findall(r"`([^`]+)`", tests)
    assert named, promise
    assert [test for test in named if not _exists(test)] == []
