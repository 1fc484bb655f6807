"""Setting up the log: each line once, whatever the program sets up itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

BEGIN = """
import logging, sys
from totoms import TotoLogger
from totoms.logging.formats import identity
from totoms.logging.setup import configure_logging
def configure():
    configure_logging()
    identity.describe("blog", "1.4.0", "severity")
def basic(**more):
    logging.basicConfig(stream=sys.stdout, format="own %(name)s %(message)s", level=logging.INFO, **more)
def lines(text):
    logging.getLogger("service").info(text, extra={"invoice": 7})
    TotoLogger.get_instance("blog").info(text, invoice=7)
"""


def run(source: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + source],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def shown(lines: list[str]) -> list[Any]:
    """Return the lines, of JSON the logger, the message and the field."""
    records = [json.loads(line) if line.startswith("{") else line for line in lines]
    return [
        one if isinstance(one, str) else (one["logger"], one["message"], one["invoice"], one["service"])
        for one in records
    ]


OWN = [("service", "text", 7, "blog"), ("totoms.blog", "text", 7, "blog")]
USERS = ["own service text", "own totoms.blog text"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("configure(); lines('text')", OWN),
        ("configure(); basic(); lines('text')", OWN),
        ("configure(); configure(); lines('text')", OWN),
        ("basic(); configure(); lines('text')", USERS),
        ("configure(); basic(force=True); lines('text')", USERS),
        ("TotoLogger('blog').debug('x'); basic(); configure(); lines('text')", USERS),
    ],
    ids=["alone", "basicConfig after", "twice", "basicConfig before", "forced after", "between"],
)
def test_each_line_is_printed_once(source: str, expected: list[Any]) -> None:
    assert shown(run(source)) == expected


def test_debug_lines_are_printed_if_log_level_is_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    source = "logging.getLogger('service').debug('d', extra={'invoice': 1}); TotoLogger('blog').debug('d', invoice=2)"
    assert shown(run(f"configure(); {source}")) == [
        ("service", "d", 1, "blog"),
        ("totoms.blog", "d", 2, "blog"),
    ]
