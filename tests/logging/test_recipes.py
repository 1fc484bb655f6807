"""The recipes of docs/operations/logs.md for structlog and loguru."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs/operations/logs.md").read_text()
BEGIN = """
import logging
from totoms.context import current_cid
from totoms.logging.formats import identity
from totoms.logging.setup import configure_logging
{before}
use()
configure_logging()
identity.describe("blog", "1.4.0", "severity")
current_cid.set("cid-1")
"""


def recipe(name: str) -> str:
    pytest.importorskip(name, reason="not installed: nox -s tests does")
    (found,) = re.findall(rf"^```python\n# use_{name}\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return f"{found}\nuse = use_{name}\n"


def run(source: str) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_structlog_prints_its_fields() -> None:
    lines = run(
        BEGIN.format(before=recipe("structlog"))
        + """
log = structlog.get_logger("service.store")
log.debug("Not shown")
log.bind(customer="c-1").info("Paid 100 %", invoice=7, name="Jane", cid="theirs")
structlog.contextvars.bind_contextvars(tenant="t-1")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("Failed", invoice=8)
"""
    )
    paid, failed = lines
    assert (paid["message"], paid["severity"], paid["logger"]) == ("Paid 100 %", "INFO", "service.store")
    assert (paid["invoice"], paid["customer"], paid["extra_name"], paid["extra_cid"]) == (7, "c-1", "Jane", "theirs")
    assert (paid["cid"], paid["service"], paid["version"]) == ("cid-1", "blog", "1.4.0")
    assert (failed["severity"], failed["invoice"], failed["tenant"]) == ("ERROR", 8, "t-1")
    assert "ZeroDivisionError" in failed["exception"]


def test_loguru_prints_its_fields() -> None:
    lines = run(
        BEGIN.format(before=recipe("loguru"))
        + """
logger.debug("Not shown")
logger.bind(invoice=7, name="Jane", cid="theirs").info("Paid 100 % by {who}", who="me")
logger.success("Done")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("Failed")
"""
    )
    paid, done, failed = lines
    assert (paid["message"], paid["severity"], paid["logger"]) == ("Paid 100 % by me", "INFO", "__main__")
    assert (paid["invoice"], paid["who"], paid["extra_name"], paid["extra_cid"]) == (7, "me", "Jane", "theirs")
    assert (paid["cid"], paid["service"], paid["version"]) == ("cid-1", "blog", "1.4.0")
    assert (done["message"], done["severity"]) == ("Done", "INFO")
    assert failed["severity"] == "ERROR"
    assert "ZeroDivisionError" in failed["exception"]
