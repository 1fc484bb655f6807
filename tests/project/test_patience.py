"""No test depends on how fast the machine is: what the source of the tests shows of that."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in (
        "tests",
        "examples/totoms-nats/tests",
        "examples/totoms-memory/tests",
        "packages/totoms-core/src/totoms/testing",
    )
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "faults" not in path.parts  # these are about time, and run by themselves
]
SHORTEST = 60.0
"""Seconds within which what must happen happens, with other processes at all cores."""
_WAITS = re.compile(
    r"asyncio\.timeout\((\d+(?:\.\d+)?)\)|^_?[A-Z_]*(?:DEADLINE|PATIENCE)(?:: Final)? = (\d+(?:\.\d+)?)$"
)
_CLOCKS = {"time.time()", "time.monotonic()", "datetime.now(UTC)", "datetime.now()"}


def test_who_waits_for_what_must_happen_is_patient() -> None:
    short = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in _WAITS.finditer(line)
        if float(match[1] or match[2]) < SHORTEST
    ]
    assert short == [], "on a busy machine it takes longer; wait for two minutes"


def test_no_time_is_reckoned_at_import() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in SOURCES
        for node in at_import(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node) in _CLOCKS
    ]
    assert found == [], "the test may run any while after it; reckon it in the test"


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Return what is evaluated while the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from at_import(child)
