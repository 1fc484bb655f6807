"""docs/contracts.md: its commands are understood, and its example says what the command says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.services import CHANGES
from support.commands import parse
from support.pages import blocks, commands

PAGE = "contracts.md"


@pytest.mark.parametrize("command", commands(PAGE))
def test_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(command.removeprefix("python -m totoms ")).command.callback


def test_lines_are_those_that_the_command_prints() -> None:
    said = {text for _, _, text in CHANGES.values()}
    lines = [line for line in blocks(PAGE, "text")[0].splitlines() if re.match(r"BREAKS|note", line)]
    assert lines
    assert set(lines) <= said
