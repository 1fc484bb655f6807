"""Shells complete commands, options and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import DEADLINE


def totoms(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "totoms", *arguments]
    env = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, env=env)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed_and_valid(shell: str, tmp_path: Path) -> None:
    done = totoms("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_TOTOMS_COMPLETE" in done.stdout
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(done.stdout)
        subprocess.run([program, "-n", str(tmp_path / "script")], check=True, timeout=DEADLINE)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("totoms ", {"run", "new", "check", "contract", "dlq"}),
        ("totoms ch", {"check"}),
        ("totoms dlq re", {"replay"}),
        ("totoms run --re", {"--reload"}),
        ("totoms new orders --backend ", {"local", "aws", "gcp", "azure"}),
    ],
)
def test_commands_options_and_values_are_completed(words: str, wanted: set[str]) -> None:
    number = str(len(words.split(" ")) - 1)
    done = totoms(_TOTOMS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
    assert done.returncode == 0, done.stderr
    assert wanted <= {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_unknown_shell_is_one_line() -> None:
    done = totoms("completion", "cmd")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
