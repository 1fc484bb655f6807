"""The soak for half a minute (``nox -s faults`` runs all ten minutes of it), and that it would tell."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.faults.oracle import problems
from totoms.testing.stalls import StallMeter

SOAK = Path(__file__).with_name("soak.py")


@pytest.mark.faults
def test_half_a_minute_of_everything_at_once(figure: Any) -> None:
    command = [sys.executable, str(SOAK), "--minutes", "0.5", "--seed", "20001"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    (verdict,) = re.findall(r"^.* acknowledged, 0 lost.*$", done.stdout, re.MULTILINE)
    figure("soak, half a minute, seed 20001", verdict)


@pytest.mark.parametrize(
    ("acknowledged", "handled", "dead", "told"),
    [
        ({1, 2, 3, 50}, {1, 2, 3}, {50}, None),
        ({1, 2, 50}, {1, 2, 3}, {50, 100}, None),  # published, but its publisher was killed before it knew
        ({1, 2, 3, 50}, {1, 3}, {50}, "1 acknowledged and lost: [2]"),
        ({1, 50}, {1}, set(), "1 acknowledged and lost: [50]"),
        ({1, 50}, {1, 50}, set(), "1 poison handled: [50]"),
        ({1, 2, 50}, {1}, {2, 50}, "1 good and dead-lettered: [2]"),
    ],
)
def test_oracle_reports_what_must_not_be(
    acknowledged: set[int], handled: set[int], dead: set[int], told: str | None
) -> None:
    found = problems(acknowledged, {50, 100}, handled, dead)

    assert (told in found) if told else (found == [])


async def test_stall_of_a_loop_is_measured() -> None:
    async with StallMeter() as meter:
        await asyncio.sleep(0.05)
        time.sleep(0.2)  # noqa: ASYNC251 - what blocks a loop is what is measured

    assert meter.longest > 0.15
