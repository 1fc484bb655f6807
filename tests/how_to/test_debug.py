"""docs/how-to/debug.md: its command is understood, and its lease is one that backends take."""

from __future__ import annotations

from support.commands import parse
from support.pages import commands, run

PAGE = "how-to/debug.md"


def test_command_is_understood() -> None:
    (command,) = commands(PAGE)
    assert parse(command.removeprefix("python -m totoms ")).command.callback


def test_lease_is_as_long_as_the_page_says() -> None:
    assert run(PAGE).bus.lease == 3600
