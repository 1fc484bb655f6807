"""docs/cli.md and docs/console.md: their commands are understood, and every command is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.commands import parse
from support.pages import DOCS, commands
from totoms.cli.main import COMMANDS

LINES = [
    line.removeprefix("python -m totoms ")
    for page in ("cli.md", "console.md")
    for line in commands(page)
    if line.startswith("python -m totoms")
]


@pytest.mark.parametrize("command", LINES)
def test_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(command).command.callback


def test_every_command_is_on_the_page() -> None:
    listed = re.findall(r"^\| \[`(\w+)`\]", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
