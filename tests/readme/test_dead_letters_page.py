"""docs/operations/dead-letters.md: its commands are understood, its table has every reason, and its test runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import parse
from totoms.messages.dead_letters import DeadLetter, DeadLetterReason
from totoms.messages.exported import to_line

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations" / "dead-letters.md").read_text()
COMMANDS = re.findall(r"^python -m totoms (.*)$", PAGE, re.MULTILINE)
(BLOCK,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str) -> None:
    assert parse(command).command.callback


def test_every_command_is_on_the_page() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "totoms", "dlq", "--help"], capture_output=True, text=True, check=True
    ).stdout
    known = re.findall(r"^  ([a-z]+)  ", shown, re.MULTILINE)
    assert {shlex.split(command)[1] for command in COMMANDS} == set(known)
    assert len(known) == 8


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    documented = set(re.findall(r"``(\w+)``", DeadLetterReason.__doc__ or ""))
    assert documented
    assert explained == documented | {"damaged"}


@pytest.mark.parametrize(("data", "result"), [({"slug": "a", "title": "A"}, "1 passed"), ({"slug": "a"}, "1 failed")])
def test_block_is_a_test_that_fails_as_production_did(tmp_path: Path, data: dict[str, str], result: str) -> None:
    body = json.dumps({"type": "postCreated", "cid": "c-1", "id": "1", "data": data}).encode()
    letter = DeadLetter("17", "m-1", "blog-posts", body, {"messageType": "postCreated"}, DeadLetterReason("x"), 0.0)
    (tmp_path / "failures.jsonl").write_text(to_line(letter, with_data=True) + "\n")
    (tmp_path / "test_block.py").write_text(BLOCK)
    (tmp_path / "service.py").write_text((ROOT / "examples" / "blog" / "service.py").read_text())

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_block.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result in done.stdout, done.stdout + done.stderr
