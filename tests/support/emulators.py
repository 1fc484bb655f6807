"""Servers that stand in for clouds, where they are installed.

A test whose server is missing is skipped, and the summary says so with the way to install it. Where the variable
``TOTOMS_REQUIRE_EMULATORS`` is 1, as in CI, it fails instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

_MARK = "NOT TESTED"
# Where systems put servers, and where a developer's PATH may not lead.
_PLACES = "/usr/sbin:/usr/local/sbin"
_KEEPER = """
import signal, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: server.kill())
threading.Thread(target=lambda: (sys.stdin.read(), server.kill()), daemon=True).start()
sys.exit(server.wait())
"""


@contextlib.contextmanager
def kept(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, without its output, until the block ends, or this process does, though it be killed.

    Args:
        command: Its program and arguments.
        env: Its variables; by default those of this process.
    """
    quiet = subprocess.DEVNULL
    keeper = [sys.executable, "-I", "-S", "-c", _KEEPER, *command]
    with subprocess.Popen(keeper, env=env, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(120)


def require(program: str, *, remedy: str, optional: bool = False) -> str:
    """Return the path of `program`. Call it in a fixture: without the program its tests are skipped, or fail.

    Args:
        program: Its name.
        remedy: The command that installs it.
        optional: Whether its tests are skipped even where servers are required: what it does beside a stand-in of ours
            is a second opinion, and not every machine can have it.
    """
    path = shutil.which(program) or shutil.which(program, path=_PLACES)
    if path is None:
        told = f"{_MARK}: {program} is not installed; remedy: {remedy}"
        if os.environ.get("TOTOMS_REQUIRE_EMULATORS") == "1" and not optional:
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
    return path


def tell_missing(terminalreporter: Any) -> None:
    """Write a line for each program that tests were skipped for. From reports, which travel among processes."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    found = Counter(match.group(0) for text in skipped if (match := re.search(rf"{_MARK}: [^'\")]*", text)))
    if found:
        terminalreporter.section("stand-ins that are missing")
    for told, count in sorted(found.items()):
        terminalreporter.write_line(f"{told} ({count} tests)")
